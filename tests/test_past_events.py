"""
Tests of the list of past events: the newest of them, what is left out, and what a host shows without its broker.

Not here: reading the bus backwards, which is in the contract of both buses, and the form of a line.
"""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.interface import FEWEST_AT_ONCE
from dkist_processing_core.cli.events.past import Choice, PastEvents
from dkist_processing_core.cli.program import app
from dkist_processing_core.cli.runs.find import find_run
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Selection, subscribe
from dkist_processing_core.consumer.backwards import all_back
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.events import Event, WorkflowFailed, WorkflowStarted
from dkist_processing_core.journal.message import Message, Properties, to_message
from dkist_processing_core.runs import RunView
from tests.facts import failed, finished, make, progressed, started
from tests.services.broker import Broker
from tests.services.sockets import LOOPBACK

NOW = datetime.now(UTC)


def publish(*events: Event) -> None:
    """
    Put events on the bus of the environment.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)


@pytest.fixture
def _many() -> None:
    """
    Many events on the embedded journal, of some of which there are several reports.
    """
    told: list[Event] = []
    for number in range(400):
        told += [progressed("A", number, time=NOW - timedelta(minutes=400 - number))]
        if number % 40 == 0:
            name, time = f"B{number}", NOW - timedelta(minutes=400 - number)
            told += [failed(name, time=time), failed(name, time=time, reported_by="engine", provisional=True)]
    publish(*told)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("limit", [1, 7, 100, 255, 256, 257, 410])
@pytest.mark.parametrize("choice", [{}, {"every_report": True}, {"since": NOW - timedelta(minutes=90)}])
def test_the_newest_events_are_the_end_of_the_whole_list(choice: dict[str, object], limit: int) -> None:
    """
    Whatever is chosen, the limit only leaves out older events, and it is reported if it does.
    """
    settings, remarks = DKISTProcessingCoreConfiguration.read(), list[str]()
    selection = Selection(("task.failed", "task.progressed"))
    whole = list(PastEvents(settings, Choice(selection, **choice), remarks.append))  # type: ignore[arg-type]

    newest = list(PastEvents(settings, Choice(selection, **choice, limit=limit), remarks.append))  # type: ignore[arg-type]

    assert newest == whole[-limit:]
    assert bool(remarks) == (len(whole) > limit)


@pytest.mark.usefixtures("_many")
def test_a_limit_shows_the_newest_events_and_says_so() -> None:
    """
    The oldest of them comes first; a program that sets no limit gets all events.
    """
    few = CliRunner().invoke(app, ["events", "list", "--limit", "3", "--json"])
    many = CliRunner().invoke(app, ["events", "list", "--limit", "0"])
    unlimited = CliRunner().invoke(app, ["events", "list"])

    assert [json.loads(line)["data"]["sequence"] for line in few.stdout.splitlines()] == [397, 398, 399]
    assert few.stderr == "the newest 3; --limit 0 shows older events as well\n"
    assert many.stdout == unlimited.stdout
    assert (len(many.stdout.splitlines()), many.stderr) == (410, "")


def test_no_older_events_are_reported_if_all_that_were_chosen_are_shown() -> None:
    """
    The events that lie behind them on the bus are of another run.
    """
    others = [progressed("A", number, time=NOW, run_id="another") for number in range(1000)]
    publish(*others, *(progressed("A", number, time=NOW, run_id="wanted") for number in range(3)))

    exactly = CliRunner().invoke(app, ["events", "list", "--run", "wanted", "--limit", "3"])
    fewer = CliRunner().invoke(app, ["events", "list", "--run", "wanted", "--limit", "2"])

    assert (len(exactly.stdout.splitlines()), exactly.stderr) == (3, "")
    assert (len(fewer.stdout.splitlines()), fewer.stderr) == (2, "the newest 2; --limit 0 shows older events as well\n")


@pytest.fixture
def _behind_nonsense() -> None:
    """
    A run at the end of a journal, behind many messages that are no events: each of them that is read is counted.
    """
    facts: dict[str, Any] = {"time": NOW, "run_id": "local__1__20261129T020544Z__8bf54b12"}
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        nonsense = Message(publisher.bus.event_exchange, "task.started.W.A", b"?", Properties("m", "application/json"))
        publisher._shelf.append([nonsense] * 5000)
        publisher.publish(
            make(WorkflowStarted, started_at=NOW, **facts), *(progressed("A", number, **facts) for number in range(110))
        )


def _list_newest(settings: DKISTProcessingCoreConfiguration, limit: int) -> list[Event]:
    """
    Return the newest events.
    """
    return list(PastEvents(settings, Choice(Selection(), limit=limit), lambda _: None))


def _find(settings: DKISTProcessingCoreConfiguration, named: str | None) -> RunView:
    """
    Return the run that `timeline` draws.
    """
    return find_run(lambda takes: all_back(settings, Selection(), takes=takes), named, where="here")


@pytest.mark.usefixtures("_behind_nonsense")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (lambda settings: _list_newest(settings, 100), FEWEST_AT_ONCE - 111),
        (lambda settings: _find(settings, None), FEWEST_AT_ONCE - 111),
        (lambda settings: _find(settings, "8bf54b12"), FEWEST_AT_ONCE - 111),
        (lambda settings: _find(settings, "4b12"), 5000),
        (lambda settings: _list_newest(settings, 0), 5000),
    ],
    ids=["list --limit 100", "timeline", "timeline 8bf54b12", "timeline 4b12", "list --limit 0"],
)
def test_one_batch_is_read_of_a_long_journal_if_it_is_enough(
    command: Callable[[DKISTProcessingCoreConfiguration], object], expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The newest events and the newest run are read from the end; only what may have older rivals is read to the start.
    """
    command(DKISTProcessingCoreConfiguration.read())

    (line,) = [record.getMessage() for record in caplog.records if "are no events" in record.getMessage()]
    assert line.startswith(f"{expected} messages are no events")


@pytest.mark.usefixtures("_many")
def test_a_list_on_a_terminal_has_the_newest_hundred() -> None:
    """
    A person who sets no limit sees the end of the list, and how to see the rest.
    """
    terminal, its_end = pty.openpty()
    program = [sys.executable, "-m", "dkist_processing_core.cli", "events", "list", "--type", "task.progressed"]
    with subprocess.Popen(program, stdout=its_end, stderr=subprocess.PIPE, text=True) as process:
        os.close(its_end)
        shown = b""
        # Linux reports the end of a terminal whose other side is closed as an error.
        with suppress(OSError):
            while found := os.read(terminal, 65_536):
                shown += found
        assert process.stderr is not None
        remark = process.stderr.read()
    os.close(terminal)

    assert shown.count(b"task.progressed") == 100
    assert remark == "the newest 100; --limit 0 shows older events as well\n"


def test_a_subscription_to_a_dead_broker_fails_on_request(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    Program and command line have the same choice.
    """
    place = {"mesh_address": LOOPBACK, "mesh_port": refusing_port}
    monkeypatch.setenv("MESH_CONFIG", json.dumps({"interservice-bus": place}))

    tail = CliRunner().invoke(app, ["events", "tail", "--no-wait"])

    assert (tail.exit_code, tail.stdout) == (1, "")
    assert tail.stderr.startswith(f"error: RabbitMQ at {LOOPBACK}:{refusing_port} refuses the connection")
    with pytest.raises(BusUnreachableError, match="nothing listens there"):
        subscribe(connect="fail")
    with pytest.raises(ValueError, match="connect is 'maybe', expected 'wait' or 'fail'"):
        subscribe(connect="maybe")  # type: ignore[arg-type]


def test_what_reads_the_bus_for_a_person_imports_nothing_that_publishes() -> None:
    """
    Imports take most of the time until the first line of a list or a timeline.
    """
    source = """
import sys
import dkist_processing_core.cli.events.show
import dkist_processing_core.cli.runs.timeline
print(*(name for name in sys.modules if name.startswith(("dkist_processing_core", "opentelemetry", "pydantic"))))
"""
    listed = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True).stdout.split()

    assert "dkist_processing_core.consumer.backwards" in listed
    needless = ("dkist_processing_core.delivery", "dkist_processing_core.outbox", "opentelemetry", "pydantic")
    assert [name for name in listed if name.startswith(needless)] == []


# Prints the modules that are loaded when a command writes its first line.
_LOADED_AT_FIRST_LINE = """
import io, sys
class Output(io.TextIOWrapper):
    loaded = None
    def write(self, text):
        Output.loaded = Output.loaded or list(sys.modules)
        return len(text)
real, sys.stdout = sys.stdout, Output(io.BytesIO(), encoding="utf-8")
from dkist_processing_core.cli import main
try:
    main()
finally:
    print(*Output.loaded, file=real)
"""
_LIBRARIES = {"msgspec", "rich", "typer"}
# Typer checks arguments with pydantic, since its release 0.28.
_OF_TYPER = {"annotated_doc", "annotated_types", "click", "pydantic", "pydantic_core", "shellingham"}
_OF_TYPER |= {"typing_extensions", "typing_inspection"}
_MOST_OWN_MODULES = 165


def _loaded_at_first_line(*arguments: str) -> set[str]:
    # If coverage is measured, it would measure this process and load its own modules.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", _LOADED_AT_FIRST_LINE, *arguments]
    shown = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert shown.returncode == 0, shown.stderr
    return set(shown.stdout.split())


def _foreign(modules: set[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - _OF_TYPER
    # Modules of the environment itself, such as that of editable installations, have no place or a private name.
    return {name for name in tops if not name.startswith("_")} - {"dkist_processing_core", "sitecustomize"}


@pytest.mark.parametrize("command", [("events", "list", "--limit", "1"), ("timeline",)])
def test_a_first_line_from_the_embedded_journal_needs_few_modules(command: tuple[str, ...]) -> None:
    """
    Imports take most of the time until it: a module that is not needed for it is imported later.
    """
    publish(started("A", time=NOW))

    loaded = _loaded_at_first_line(*command)

    assert _foreign(loaded) == _LIBRARIES
    assert {"asyncio", "http", "ssl", "concurrent.futures"}.isdisjoint(loaded)
    assert len([name for name in loaded if name.startswith("dkist_processing_core")]) <= _MOST_OWN_MODULES


@pytest.mark.parametrize("command", [("events", "list", "--limit", "1"), ("timeline",)])
def test_a_first_line_from_a_broker_needs_few_modules_and_its_client(
    command: tuple[str, ...], broker: Broker, use: Callable[[Broker], None]
) -> None:
    """
    Nothing is imported for it that publishes events or serves requests.
    """
    use(broker)
    publish(started("A", time=NOW))

    loaded = _loaded_at_first_line(*command)

    assert _foreign(loaded) == {*_LIBRARIES, "pika"}
    assert "http" not in loaded
    assert len([name for name in loaded if name.startswith("dkist_processing_core")]) <= _MOST_OWN_MODULES + 15


@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_a_timeout_also_limits_the_wait_for_a_dead_broker(
    monkeypatch: pytest.MonkeyPatch, refusing_port: int, timeout: float
) -> None:
    """
    A script that reads the past until it is quiet ends, with the reason.
    """
    place = {"mesh_address": LOOPBACK, "mesh_port": refusing_port}
    monkeypatch.setenv("MESH_CONFIG", json.dumps({"interservice-bus": place}))

    with pytest.raises(BusUnreachableError, match="nothing listens there"):
        subscribe(replay=True, timeout=timeout)


def test_without_its_broker_a_host_shows_the_events_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, refusing_port: int
) -> None:
    """
    One line of errors explains that these are not all, and the exit code is that of a failure.
    """
    place = {"mesh_address": LOOPBACK, "mesh_port": refusing_port}
    monkeypatch.setenv("MESH_CONFIG", json.dumps({"interservice-bus": place}))
    nothing = CliRunner().invoke(app, ["events", "list"])
    publish(started("A", time=NOW), failed("A", time=NOW), finished("B", time=NOW))

    listed = CliRunner().invoke(app, ["events", "list", "--json"])
    newest = CliRunner().invoke(app, ["events", "list", "--limit", "1"])
    drawn = CliRunner().invoke(app, ["timeline"])

    names = [json.loads(line)["type"].rpartition("dkist.")[2] for line in listed.stdout.splitlines()]
    assert names == ["task.started", "task.failed", "task.finished"]
    assert "finished" in newest.stdout
    assert "recipe run" in drawn.stdout
    for shown in (listed, newest, drawn):
        assert shown.exit_code == 1
        (line,) = [line for line in shown.stderr.splitlines() if line.startswith("error: ")]
        assert "nothing listens there" in line
        assert "only events that wait on this host for the broker: 3" in line
    assert "no event waits on this host" in nothing.stderr

    failures = CliRunner().invoke(app, ["events", "list", "--type", "task.failed"])

    assert "only events that wait on this host for the broker: 1 (of 3 messages in " in failures.stderr


@pytest.mark.parametrize("begins", [False, True])
def test_without_its_broker_a_host_knows_the_start_of_a_run_only_if_its_report_waits(
    monkeypatch: pytest.MonkeyPatch, refusing_port: int, *, begins: bool
) -> None:
    """
    The broker may have the first tasks of the run: a task that starts on this host is not the start.
    """
    place = {"mesh_address": LOOPBACK, "mesh_port": refusing_port}
    monkeypatch.setenv("MESH_CONFIG", json.dumps({"interservice-bus": place}))
    publish(*([make(WorkflowStarted, started_at=NOW, time=NOW)] if begins else []), started("B", time=NOW))

    document = json.loads(CliRunner().invoke(app, ["timeline", "--json"]).stdout)
    drawn = CliRunner().invoke(app, ["timeline"]).stdout

    moment = NOW.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert (document["startedAt"], document["startedBefore"]) == ((moment, None) if begins else (None, moment))
    assert ("before " in drawn) is not begins


def test_events_that_still_wait_are_shown_after_those_of_the_bus(broker: Broker, use: Callable[[Broker], None]) -> None:
    """
    After an outage they are part of the lists and of the run, and one line on standard error says what delivers them.
    """
    use(broker)
    publish(started("A", time=NOW))
    settings = DKISTProcessingCoreConfiguration.read()
    with open_bus(settings).open_journal() as journal:
        waiting = (failed("A", time=NOW), started("B", run_id="waiting", time=NOW))
        journal.append([to_message(event, settings.isb_event_exchange) for event in waiting])

    everything = CliRunner().invoke(app, ["events", "list", "--json"])
    newest = CliRunner().invoke(app, ["events", "list", "--limit", "2", "--json"])
    drawn = CliRunner().invoke(app, ["timeline", "waiting"])
    unknown = CliRunner().invoke(app, ["events", "list", "--run", "nowhere"])

    remark = "2 messages of this host wait for the broker; `dkist-core outbox drain` delivers them\n"
    names = [json.loads(line)["type"].rpartition("dkist.")[2] for line in everything.stdout.splitlines()]
    assert names == ["task.started", "task.failed", "task.started"]
    assert newest.stdout.splitlines() == everything.stdout.splitlines()[1:]
    assert "waiting" in drawn.stdout
    for shown in (everything, newest, drawn):
        assert (shown.exit_code, shown.stderr[-len(remark) :]) == (0, remark)
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("error: there is no run 'nowhere' on RabbitMQ")


def test_a_list_of_an_unknown_run_is_an_error_and_an_empty_one_of_a_known_run_is_not() -> None:
    """
    The error names the latest runs, as that of `timeline` does.
    """
    publish(started("A", time=NOW))

    unknown = CliRunner().invoke(app, ["events", "list", "--run", "nowhere"])
    empty = CliRunner().invoke(app, ["events", "list", "--run", "r", "--type", "task.failed"])

    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.endswith("the latest runs there: r\n")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert empty.stderr.startswith("no such event on ")


def test_a_list_of_the_final_failures_of_today_names_what_an_operator_has_to_look_at() -> None:
    """
    Attempts that are retried are left out, and the end of a run names its failed tasks.
    """
    now = datetime.now(UTC)
    publish(
        failed("Retried", final=False, time=now),
        failed("Broken", time=now),
        failed("Unknown", final=None, time=now),
        make(WorkflowFailed, tasks={"Broken": "failed", "Other": "success"}, time=now),
    )

    names = ["--type", "task.failed", "--type", "workflow.failed"]
    shown = CliRunner().invoke(app, ["events", "list", "--final", "--since", "today", *names]).stdout

    assert [name for name in ("Retried", "Broken", "Unknown") if name in shown.partition("workflow.failed")[0]] == [
        "Broken",
        "Unknown",
    ]
    assert "2 tasks: 1 failed, 1 finished, failed: Broken" in " ".join(shown.split())
