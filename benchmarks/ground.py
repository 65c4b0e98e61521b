"""
The setup that all sides share: a private RabbitMQ node, a virtual host per run, and separate processes.

Not here: the measurements, and the sides' programs.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.sides.job import Job
from benchmarks.sides.library import settings_of
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, publisher_topology
from tests.services.broker import Broker, open_broker
from tests.services.processes import SESSION_VARIABLE
from tests.services.rabbitmq import RabbitMQNode
from tests.services.storage import disk_folder

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SIDE_SECONDS = 420
# Variables of this machine that would configure the library.
_SETTINGS = ("DKIST_CORE_", "ISB_", "OTEL_", "MESH_CONFIG", "EVENT_FLUSH_TIMEOUT", "TRACEPARENT", "BUILD_VERSION")


class SideError(RuntimeError):
    """A side failed; the message ends with the side's output."""


@dataclass(frozen=True)
class Side:
    """A program of `benchmarks/sides`, and its name in figures."""

    label: str
    program: str
    is_peer: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return the command that starts the side."""
        python = PEERS_PYTHON if self.is_peer else Path(sys.executable)
        return [str(python), "-m", f"benchmarks.sides.{self.program}"]


def environment(**settings: str) -> dict[str, str]:
    """
    Return this process's environment without variables that change a side's behaviour, with bytecode kept as usual.
    """
    kept = {
        name: value for name, value in os.environ.items() if name == SESSION_VARIABLE or not name.startswith(_SETTINGS)
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | settings


@dataclass(frozen=True)
class Ground:
    """A running node, a folder on a disk, and the messages on it."""

    node: RabbitMQNode
    folder: Path

    def messages(self, count: int, size: int = corpus.KIB) -> Path:
        """Return a file of at least `count` messages, written when it is first asked for."""
        found = [path for path in self.folder.glob(f"messages-{size}-*") if int(path.name.split("-")[2]) >= count]
        if found:
            return found[0]
        path = self.folder / f"messages-{size}-{count}"
        corpus.write_messages(path, count, size)
        return path

    @contextmanager
    def job(self, count: int, *, size: int = corpus.KIB, warm_up: int = 50, archive: str = "stream") -> Iterator[Job]:
        """
        Yield a job on an empty virtual host with the library's topology and on an empty state folder.

        With `archive` classic, the queue of the archive's name is a durable classic one, which the library accepts.
        """
        with open_broker(self.node) as broker, self.state_dir() as state_dir:
            yield declared(
                Job(
                    host=broker.host,
                    port=broker.port,
                    vhost=broker.vhost,
                    username=broker.username,
                    password=broker.password,
                    exchange="workflow.events.x",
                    queue=ARCHIVE_QUEUE,
                    queue_arguments={"x-queue-type": archive},
                    messages=str(self.messages(count + warm_up, size)),
                    state_dir=str(state_dir),
                    count=count,
                    warm_up=warm_up,
                ),
                broker,
            )

    @contextmanager
    def state_dir(self) -> Iterator[Path]:
        """Yield an empty folder for a journal."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="state-") as folder:
            yield Path(folder)


def declared(job: Job, broker: Broker) -> Job:
    """Declare the library's topology, and return the job with the kind of its archive."""
    topology = publisher_topology(settings_of(job))
    if job.queue_arguments["x-queue-type"] == "stream":
        archive = next(queue for queue in topology.queues if queue.name == job.queue)
        job = replace(job, queue_arguments=dict(archive.arguments))
    with broker.connect() as connection:
        channel = connection.channel()
        for exchange in topology.exchanges:
            channel.exchange_declare(exchange.name, exchange.type, durable=True)
        for queue in topology.queues:
            arguments = job.queue_arguments if queue.name == job.queue else dict(queue.arguments)
            channel.queue_declare(queue.name, durable=True, arguments=arguments)
        for binding in topology.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
    return job


@contextmanager
def open_ground() -> Iterator[Ground]:
    """Start the node, and yield the setup around it."""
    BUILD.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=BUILD, prefix="bench-") as preferred,
        disk_folder(Path(preferred)) as folder,
        RabbitMQNode(folder / "node") as node,
    ):
        yield Ground(node, folder)


class Run:
    """A running side."""

    def __init__(self, side: Side, job: Job, folder: Path) -> None:
        """Start it, and pass it its job."""
        self._side = side
        # A task has the secret there, and redaction reads it there.
        secret = {} if side.is_peer else {"ISB_PASSWORD": job.password}
        # To a file, because a pipe is not read while the side works.
        self._errors = folder / f"errors-{secrets.token_hex(6)}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                side.command(),
                cwd=ROOT,
                env=environment(**secret),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._line(replace(job, options=job.options | side.options).to_line())

    def _line(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def wait_until_ready(self) -> None:
        """Return when the side has reported that it is prepared."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            self.result()
            raise SideError(f"{self._side.label} did not wait for its start")

    def begin(self) -> None:
        """Start the measuring of a prepared side."""
        self._line("begin\n")

    def result(self, timeout: float = SIDE_SECONDS) -> dict[str, Any]:
        """Wait for the end and return the figures."""
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            self.end()
            raise SideError(f"{self._side.label} did not end within {timeout:g} s{self._tail()}") from error
        if self.process.returncode:
            raise SideError(f"{self._side.label} exited with {self.process.returncode}{self._tail()}")
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
        return figures

    def end(self) -> None:
        """Kill the side, if it runs."""
        self.process.kill()
        self.process.communicate()

    def _tail(self) -> str:
        return "\n" + self._errors.read_text(errors="replace")[-3000:]


def run(side: Side, job: Job, folder: Path, timeout: float = SIDE_SECONDS) -> dict[str, Any]:
    """Run a side to its end and return its figures."""
    started = Run(side, job, folder)
    try:
        return started.result(timeout)
    finally:
        started.end()
