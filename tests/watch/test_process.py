"""The watcher as a process: what it publishes, how it waits for bus and database, and how it ends."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, text

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.collect.listening import spans
from dkist_processing_core.collect.tables import LISTENING
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, TaskOverdue, WorkflowOverdue, WorkflowStarted
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from tests.facts import make
from tests.notify.receivers import HttpReceiver
from tests.running import ROOT, command, run_command
from tests.services.broker import Broker
from tests.services.processes import descendants
from tests.services.proxy import Proxy
from tests.services.sockets import closed_port, free_ports
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.services.postgres import PostgresServer

SAMPLE_SECONDS = 0.5
LIMIT = timedelta(seconds=3 * SAMPLE_SECONDS)
# A watcher looks each second, and knows the reports of a moment about as much later.
LOOK = timedelta(seconds=4)
WORKFLOW = """
from dkist_processing_core import Workflow
from tests.launched import Waits

waiting = Workflow(process_category="test", process_name="waiting")
waiting.add_node(Waits)
"""
ROUTE = """
[routes.operators.webhook]
url = "{url}"
format = "slack"
"""
HOURLY = """
[[expect]]
workflow = "l0_to_l1_visp"
schedule = "0 * * * *"
grace = "1s"
"""


@dataclass
class Watch:
    """A running watcher."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def lines(self) -> list[str]:
        """What it has logged, without the remark at its start."""
        return [line for line in self.log.read_text().splitlines() if not line.startswith("watching the runs of ")]

    def health(self) -> dict[str, Any]:
        """Return the facts about its health; none before it serves them."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return {}
        return found

    def value(self, name: str) -> float | None:
        """Return the sum of the samples of a metric; None without one."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values) if values else None

    def wait_for_judgement(self) -> None:
        """Wait until all reports up to now are known and judged."""
        moment = datetime.now(UTC) + timedelta(seconds=1)

        def is_judged() -> bool:
            if self.health():
                shorten_settling()
            until = self.health().get("judgedUntil")
            return until is not None and datetime.fromisoformat(until) >= moment

        wait_until(is_judged, every=0.1)

    def end(self) -> int:
        """End it by SIGTERM, and return its exit code."""
        self.process.terminate()
        return self.process.wait(20)


@contextmanager
def watching(folder: Path, *arguments: str, name: str = "watch", **environment: str) -> Iterator[Watch]:
    """Run a watcher, or another lasting command in its place, with its health and metrics at a free port."""
    (port,) = free_ports(1)
    log = folder / f"{name}-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command(name, *arguments, "--listen", str(port))],
            cwd=folder,
            env={**os.environ, "COLUMNS": "1000", **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Watch(process, log, port)
    finally:
        process.kill()
        process.wait()


@contextmanager
def on_a_host(folder: Path) -> Iterator[Callable[[], None]]:
    """Run a workflow whose task waits on another host, and yield what takes its power: all its processes are killed."""
    (folder / "waiting_workflow.py").write_text(WORKFLOW)
    (folder / "host").mkdir(mode=0o700)
    environment = {
        "DKIST_CORE_SAMPLE_SECONDS": str(SAMPLE_SECONDS),
        "DKIST_CORE_STATE_DIR": str(folder / "host"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    process = subprocess.Popen(
        command("run", "waiting_workflow:waiting", "--recipe-run-id", "1"),
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def cut_power() -> None:
        pids = [process.pid, *descendants(process.pid)]
        # None of them may report the end of another one.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        process.wait()

    try:
        yield cut_power
    finally:
        cut_power()


def publish(*events: Event) -> None:
    """Publish events on the bus of the settings."""
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*events)


def judged_before(hours: float) -> None:
    """Make a new store one that was last judged so many hours ago."""
    at = {"at": time.time() - 3600 * hours}
    with closing(Database.open(None, read_settings())) as database, database.transaction() as connection:
        connection.execute(
            text("INSERT INTO dkist_core_timer (consumer, name, next_at) VALUES ('dkist-core.watch', 'judge', :at)"), at
        )


def share_store(server: "PostgresServer", monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have all processes use a new database on a server."""
    server.create_database(name)
    monkeypatch.setenv("DKIST_CORE_INBOX", server.url(name, driver="psycopg"))


def shorten_settling() -> None:
    """
    Let the store of the settings be complete at this moment, if it was not in the last seconds.

    After the start of its process, and after a stall on a busy machine, it would be a minute later: so long publishers
    may look for a broker that was away.
    """
    settings = read_settings()
    bus, now = archive_of(open_bus(settings)), time.time()
    with closing(Database.open(None, settings)) as database, database.transaction() as connection:
        if not any(until > now - 3.0 for _, until in spans(connection, bus)):
            connection.execute(insert(LISTENING), {"bus": bus, "since": now, "until": now})


def listened_between(first: datetime, last: datetime) -> float:
    """Return for how many seconds between two moments the store of the settings was complete."""
    settings = read_settings()
    with closing(Database.open(None, settings)) as database, database.reading() as connection:
        found = spans(connection, archive_of(open_bus(settings)))
    begin, end = first.timestamp(), last.timestamp()
    return sum(max(0.0, min(until, end) - max(since, begin)) for since, until in found)


@pytest.mark.rabbitmq
@pytest.mark.processes
def test_a_host_without_power_is_noticed_and_a_stopped_watcher_accuses_no_one(
    owned: Broker, postgres: "PostgresServer", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Two watchers share a store. The one that keeps it is stopped for longer than the limit, while the task lives.

    Then the host of the task dies. The only alarm is about that, it comes in time, and a webhook gets one notice.
    """
    del owned
    share_store(postgres, monkeypatch, "watched_host")
    with ExitStack() as stack:
        receiver = stack.enter_context(HttpReceiver())
        (tmp_path / "notify.toml").write_text(ROUTE.format(url=receiver.url))
        routes = ("--notify", str(tmp_path / "notify.toml"))
        keeps = stack.enter_context(watching(tmp_path, *routes))
        keeps.wait_for_judgement()
        other = stack.enter_context(watching(tmp_path, *routes))
        samples = stack.enter_context(subscribe("task.sampled", timeout=30))
        cut_power = stack.enter_context(on_a_host(tmp_path))
        next(samples)
        other.wait_for_judgement()
        keeps.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 2 * LIMIT.total_seconds()
        wait_until(lambda: bool(next(samples)) and time.monotonic() > until)
        keeps.process.send_signal(signal.SIGCONT)
        keeps.wait_for_judgement()
        before = datetime.now(UTC)
        cut_power()

        def is_noticed() -> bool:
            shorten_settling()
            return other.value("dkist_core_alarm_active") == 1

        wait_until(is_noticed, every=0.2)
        wait_until(lambda: len(receiver.accepted) == 1)
        ends = [keeps.end(), other.end()]
        # The other one may begin before it is noted that the store has the past, and then leaves that to the first.
        logged = [
            [line for line in each.lines if "the past events are taken in" not in line] for each in (keeps, other)
        ]
    with subscribe("task.overdue", replay=True, timeout=2) as replayed:
        alarms = [each for each in replayed if isinstance(each, TaskOverdue)]

    alarm = alarms[0]
    assert {each.id for each in alarms} == {alarm.id}
    assert (alarm.task_name, alarm.exceeded, alarm.limit_seconds) == ("Waits", "silence", LIMIT.total_seconds())
    assert alarm.last_sign_at is not None
    assert before - LIMIT < alarm.last_sign_at
    assert timedelta(seconds=listened_between(alarm.last_sign_at, alarm.time)) < 1.2 * LIMIT + LOOK
    assert [request.text.count("Waits") > 0 for request in receiver.accepted] == [True]
    assert (ends, logged) == ([0, 0], [[], []])


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_missed_start_is_published_once_by_two_watchers(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both have one store, which was judged two hours ago; a run that begins afterwards ends the alert."""
    if kind == "postgresql":
        share_store(request.getfixturevalue("postgres"), monkeypatch, "watched_starts")
    judged_before(hours=2)
    (tmp_path / "expect.toml").write_text(HOURLY)
    arguments = ("--expect", str(tmp_path / "expect.toml"))
    with ExitStack() as stack:
        missed = stack.enter_context(subscribe("workflow.overdue", timeout=30))
        watches = [stack.enter_context(watching(tmp_path, *arguments)) for _ in range(2)]
        wait_until(lambda: all(watch.health() for watch in watches), every=0.1)
        first = next(missed)
        wait_until(lambda: any(watch.value("dkist_core_start_missing") == 1 for watch in watches), every=0.1)
        now = datetime.now(UTC)
        publish(make(WorkflowStarted, workflow_name="l0_to_l1_visp", run_id="late", time=now))
        wait_until(lambda: all(watch.value("dkist_core_start_missing") in (0, None) for watch in watches), every=0.1)
        ends = [watch.end() for watch in watches]
    with subscribe("workflow.overdue", replay=True, timeout=1) as replayed:
        found = {each.id: each for each in replayed}

    assert isinstance(first, WorkflowOverdue)
    assert (first.workflow_name, first.workflow_version, first.run_id) == ("l0_to_l1_visp", "", "")
    assert (first.grace_seconds, first.reported_by) == (1.0, "watcher")
    expected = [each.expected_at for each in found.values() if isinstance(each, WorkflowOverdue)]
    assert all(at is not None and at.minute == at.second == 0 for at in expected)
    assert len(expected) == len(set(expected)) in (2, 3)
    assert ends == [0, 0]


@pytest.mark.processes
def test_a_watcher_beside_a_collect_takes_over_its_store(tmp_path: Path) -> None:
    """It judges what `collect` keeps, and keeps the store itself when that has ended."""
    with watching(tmp_path, name="collect") as collect, watching(tmp_path) as watch:
        watch.wait_for_judgement()
        ended = collect.end()
        watch.wait_for_judgement()
        publish(make(WorkflowStarted, workflow_name="l0_to_l1_visp", run_id="new"))
        wait_until(lambda: watch.value("cicd_pipeline_run_active") == 1, every=0.1)

        assert (ended, watch.end()) == (0, 0)


@pytest.mark.processes
def test_a_database_that_cannot_be_reached_is_waited_for_with_one_line(tmp_path: Path) -> None:
    """The end is requested meanwhile, and comes at once."""
    with (
        closed_port() as port,
        watching(tmp_path, DKIST_CORE_INBOX=f"postgresql://core:word@127.0.0.1:{port}/core") as watch,
    ):
        wait_until(lambda: len(watch.lines) == 1)

        assert watch.end() == 0
        (line,) = watch.lines
        assert "the consumer tries again, and no event is lost" in line


@pytest.mark.rabbitmq
@pytest.mark.processes
def test_an_outage_of_the_broker_is_one_line(
    proxied: tuple[Broker, Proxy], use: Callable[[Broker], None], tmp_path: Path
) -> None:
    """The health is bad meanwhile, and good afterwards."""
    broker, proxy = proxied
    use(broker)
    with watching(tmp_path) as watch:
        wait_until(lambda: bool(watch.health()) and all(each["receives"] for each in watch.health()["consumers"][:1]))
        proxy.refuse()
        proxy.cut()
        wait_until(lambda: any(each["bus"] == "unavailable" for each in watch.health()["consumers"]), every=0.1)
        proxy.accept()
        wait_until(lambda: all(each["bus"] == "ok" for each in watch.health()["consumers"]), every=0.1)

        assert watch.end() == 0
        assert len(watch.lines) == 1, watch.lines


@pytest.mark.rabbitmq
@pytest.mark.processes
def test_a_part_that_is_refused_ends_the_process(owned: Broker, tmp_path: Path) -> None:
    """The error is that of the part, and the exit code is 1."""
    del owned
    with watching(tmp_path, ISB_PASSWORD="wrong-word") as watch:
        assert watch.process.wait(20) == 1
        assert watch.lines[-1].startswith("error: ")
        assert "wrong-word" not in watch.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--expect", "none.toml"], "error: none.toml cannot be read: No such file or directory", 1),
        (["--notify", "none.toml"], "error: none.toml cannot be read", 1),
        (["--idle-after", "5"], "found '5', expected a number followed by s, m, h or d", 2),
        (["--reconcile-every", "often"], "found 'often', expected a number followed by s, m, h or d", 2),
        (["--health", "1", "--listen", "2"], "found --health and --listen", 2),
    ],
)
def test_a_wrong_option_ends_it_with_one_sentence(
    arguments: Sequence[str], message: str, code: int, tmp_path: Path
) -> None:
    """Nothing is opened before."""
    ended = run_command("watch", *arguments, cwd=tmp_path)

    assert ended.returncode == code
    assert message in " ".join(ended.stderr.split())
