"""
The page on a local Airflow is followed exactly, in a new folder and in one shell, as a new user would.

python -m tests.airflow.test_how_to writes the outputs again

A block after `<!-- file: PATH -->` is written to that file. The commands after `<!-- shell -->` are run, with another
port; the text below one is compared with its output. A command that shows past runs waits until all of them have ended.
The commands after `<!-- install -->` are already done: the page's `.venv` is the environment of the tests' Airflow.
"""

import os
import platform
import re
import select
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer.replay import replayed
from tests.airflow.ground import ENDS_OF_RUN
from tests.generated import generated_by
from tests.services.airflow import ENVIRONMENT, ROOT, end, require_airflow
from tests.services.processes import descendants, listeners
from tests.services.sockets import free_ports
from tests.test_docs import alike
from tests.waiting import wait_until

PAGE = ROOT / "docs" / "how-to" / "airflow.md"
SECONDS = 600.0
_TAIL = 4000

_BLOCK = re.compile(
    r"<!-- (?:file: (?P<file>[\w./]+)|(?P<kind>install|shell)) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL
)
_ADDRESS = "localhost:8080"
_LOOKS_BACK = re.compile(r"dkist-core (events|timeline|environments)\b")
# A shell with job control, as a terminal has it, that reads lines from one descriptor and writes their statuses to
# another. When no more lines come, it ends the processes that it has started.
_SHELL = """\
set -m
while IFS= read -r line <&{lines}; do
    eval "$line" </dev/null {lines}<&- {statuses}>&-
    echo $? >&{statuses}
done
kill $(jobs -p)
"""
_VARIES = [
    (re.compile(r"log: http.*?try_number=\d+", re.DOTALL), "log: ADDRESS"),
    (re.compile(r"manual__[\d:T.+-]+"), "RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "MOMENT"),
    (re.compile(r"-cp\d+-[0-9a-f]{16}\.\d+"), "-KEY"),
    (re.compile(r"built by \S+ \S+ in"), "built in"),
]
# Not useful for a reader, but for a test that waits.
_QUICK = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1", "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5"}


@dataclass(frozen=True)
class Command:
    """
    A command of the page, its output there, and its actual output.
    """

    line: str
    start: int
    """The position of its output on the page."""
    told: str
    printed: str


class Shell:
    """
    A shell that a test types into.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """
        Start it in a folder.
        """
        self._folder = folder
        self._output = folder.with_name(f"{folder.name}.log").open("w+b")
        lines, self._lines = os.pipe()
        self._statuses, statuses = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", _SHELL.format(lines=lines, statuses=statuses)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[lines, statuses],
        )
        os.close(lines)
        os.close(statuses)

    @property
    def pids(self) -> set[int]:
        """
        The ids of all processes that the shell has started.
        """
        return descendants(self._process.pid)

    def run(self, line: str) -> str:
        """
        Run a line to its end, assert that it succeeded, and return its output.
        """
        before = self._output.seek(0, os.SEEK_END)
        os.write(self._lines, f"{line}\n".encode())
        readable, _, _ = select.select([self._statuses], [], [], SECONDS)
        status = os.read(self._statuses, 10).decode().strip() if readable else "no end"
        self._output.seek(before)
        printed = self._output.read().decode()
        assert status == "0", f"{line} ended with {status}: {printed}{self._logs()}"
        return printed

    def _logs(self) -> str:
        """
        Return the ends of the logs of Airflow's processes, to find the cause of a failure.
        """
        return "".join(
            f"\n--- {log.name}\n{log.read_text(errors='replace')[-_TAIL:]}" for log in self._folder.glob("*.log")
        )

    def close(self) -> None:
        """
        End the shell, and all processes that it has started and not ended.
        """
        end({*self.pids, self._process.pid})
        self._process.wait()
        self._output.close()
        os.close(self._lines)
        os.close(self._statuses)


class Reader:
    """
    A reader who follows the page from its first line to its last.
    """

    def __init__(self, folder: Path, shell: Shell, port: int) -> None:
        """
        Begin in an empty folder.
        """
        self.commands: list[Command] = []
        self.exposed: list[object] = []
        self._folder = folder
        self._shell = shell
        self._address = f"localhost:{port}"
        self._triggered = 0

    def follow(self, page: str) -> None:
        """
        Write its files and run its commands.
        """
        for block in _BLOCK.finditer(page):
            if block["file"]:
                file = self._folder / block["file"]
                file.parent.mkdir(exist_ok=True)
                file.write_text(block["text"])
            elif block["kind"] == "shell":
                for found in re.finditer(r"\$ (.*)\n((?:(?!\$ ).*\n)*)", block["text"]):
                    self._run(found[1], found[2], block.start("text") + found.start(2))

    def _run(self, line: str, told: str, start: int) -> None:
        if _LOOKS_BACK.match(line):
            wait_until(lambda: self._ended() >= self._triggered, SECONDS, every=0.2)
            self.exposed += [found for found in listeners(self._shell.pids) if not found.is_loopback]
        self._triggered += line.startswith("airflow dags trigger")
        printed = self._shell.run(line.replace(_ADDRESS, self._address))
        for here, there in (
            (str(self._folder), "~/hello"),
            (f" {platform.node()},", " worker1,"),
            (self._address, _ADDRESS),
        ):
            printed = printed.replace(here, there)
        self.commands.append(Command(line, start, told, printed))

    def _ended(self) -> int:
        """
        Count the runs whose end is on the bus.
        """
        state = self._folder / "state"
        if not state.exists():
            return 0
        settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state)
        return sum(event.name in ENDS_OF_RUN for event in replayed(settings))


@contextmanager
def newcomer(folder: Path) -> Iterator[tuple[Reader, Shell]]:
    """
    Return a reader in an empty folder who has installed the packages of the page, and the reader's shell.
    """
    require_airflow()
    folder.mkdir()
    (folder / ".venv").symlink_to(ENVIRONMENT)
    (port,) = free_ports(1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    given = {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "COLUMNS": "100",
        "CORE": str(ROOT),
    }
    shell = Shell(folder, kept | given | _QUICK)
    try:
        yield Reader(folder, shell, port), shell
    finally:
        shell.close()


def same(text: str) -> str:
    """
    Return an output without the parts that differ from run to run.
    """
    for pattern, replacement in _VARIES:
        text = pattern.sub(replacement, text)
    return alike(text)


@generated_by(".venv/bin/python -m tests.airflow.test_how_to")
def test_who_follows_the_page_sees_what_it_shows(tmp_path: Path) -> None:
    """
    A pipeline runs as a DAG, is retried, and released; its events are on the bus, and no process is left running.
    """
    with newcomer(tmp_path / "hello") as (reader, shell):
        reader.follow(PAGE.read_text())
        left = shell.pids
    packages = {path.name for path in (tmp_path / "hello" / "environments").glob("*/lib/python*/site-packages/*")}

    shown = [each for each in reader.commands if each.told]
    assert "\n".join(same(each.printed) for each in shown) == "\n".join(same(each.told) for each in shown)
    assert (reader.exposed, left) == ([], set())
    assert {"hello_sun", "dkist_processing_core"} <= packages
    assert "airflow" not in packages


def test_the_page_installs_what_the_package_offers() -> None:
    """
    The only block that is not run creates an environment; the tests' environment replaces it.
    """
    (install,) = (block["text"] for block in _BLOCK.finditer(PAGE.read_text()) if block["kind"] == "install")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert install.splitlines()[1:] == [
        "$ python3 -m venv .venv && . .venv/bin/activate",
        '$ pip install "$CORE[airflow]"',
    ]
    assert any(requirement.startswith("apache-airflow>") for requirement in extras["airflow"])


def test_only_what_needs_a_broker_is_not_done() -> None:
    """
    Every block of the page is marked, except the variables that name the broker, which are settings.
    """
    page = PAGE.read_text()
    marked = {block.start("text") for block in _BLOCK.finditer(page)}
    blocks = re.finditer(r"```\w+\n(.*?)```", page, re.DOTALL)

    (broker,) = (block[1] for block in blocks if block.start(1) not in marked)

    names = {name.lower() for name in re.findall(r"(\w+)=", broker)}
    assert names
    assert names <= DKISTProcessingCoreConfiguration.model_fields.keys()


def write_anew() -> None:
    """
    Put the current outputs below the commands that show any.
    """
    page = PAGE.read_text()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, newcomer(Path(name) / "hello") as (reader, _):
        reader.follow(page)
    for each in reversed(reader.commands):
        if each.told:
            page = page[: each.start] + each.printed + page[each.start + len(each.told) :]
    PAGE.write_text(page)
    print(f"followed in {time.monotonic() - began:.0f} s")  # noqa: T201 - for who has waited


if __name__ == "__main__":
    write_anew()
