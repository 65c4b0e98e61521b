"""
The outboxes of a host, as an operator lists and handles them by `dkist-core outbox`.

Not here: the delivery by a publisher itself (test_delivery), and refused messages with their reasons (test_poison).
"""

import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import CONNECT_SECONDS, AmqpBus
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal._format import FORMAT_VERSION, PAGE_SIZE
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.message import Message, Properties, to_message
from dkist_processing_core.journal.spare import Spare
from dkist_processing_core.process.trusted_files import file_mode
from tests.facts import progressed, started
from tests.running import ROOT, command, run_command
from tests.services.broker import Broker, open_broker
from tests.services.rabbitmq import RabbitMQNode
from tests.services.sockets import BlackHole
from tests.waiting import SECONDS, wait_until

PAGE = ROOT / "docs" / "how-to" / "outages.md"
VARIES = [
    (re.compile(r"(127\.0\.0\.1:\d+|(old|broker)\.example:5672)"), "BROKER"),
    (re.compile(r"virtual host (/|test-\w+)"), "VHOST"),
    (re.compile(r"outbox-\w{8}|(?<=retarget )\w{8}"), "OUTBOX"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+(\.\d+)? m?s\b"), "TIME"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r" +"), " "),
]
CANARY = "canary-7f3a/with?odd&signs"
# Publishes, prints a line, and waits to be killed before its broker receives anything.
LEAVE = """
import os, signal, sys
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed
first, count = map(int, sys.argv[1:])
AmqpBus.connect = lambda *_: signal.pause()
publisher = Publisher.open(DKISTProcessingCoreConfiguration.read())
publisher.publish(*[progressed("A", number) for number in range(first, first + count)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def outbox(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run an outbox command in a separate process, as a user does.
    """
    return run_command("outbox", *arguments)


def asked(*arguments: str) -> Result:
    """
    Run an outbox command in this process.
    """
    return CliRunner().invoke(app, ["outbox", *arguments])


def listed(*arguments: str) -> Any:
    """
    Return the decoded JSON of `dkist-core outbox list`.
    """
    return json.loads(asked("list", *arguments, "--json").stdout)


@contextmanager
def running(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """
    Run a command with its output in a file, and kill the process at the end.
    """
    called = command("outbox", *arguments)
    with log.open("wb") as file, subprocess.Popen(called, cwd=ROOT, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: "subprocess.Popen[bytes]", number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
    """
    Send a signal to a process, and return its exit code and the time that its end took.
    """
    began = time.monotonic()
    process.send_signal(number)
    return process.wait(SECONDS), time.monotonic() - began


def name_outbox(monkeypatch: pytest.MonkeyPatch, host: str, **variables: str) -> Path:
    """
    Set a broker that is never contacted, and return the path of its outbox.
    """
    mesh = {"interservice-bus": {"mesh_address": host, "mesh_port": 5672}}
    for name, value in {"MESH_CONFIG": json.dumps(mesh), **variables}.items():
        monkeypatch.setenv(name, value)
    return open_bus(DKISTProcessingCoreConfiguration.read()).journal_path


def append(*messages: Message) -> None:
    """
    Append messages to the outbox of the settings, unchanged.
    """
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        journal.append(messages)


def append_events(count: int) -> None:
    """
    Append events to the outbox of the settings.
    """
    exchange = DKISTProcessingCoreConfiguration.read().isb_event_exchange
    append(*[to_message(progressed("A", number), exchange) for number in range(count)])


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """
    Return the content and the time of change of every file of a folder.
    """
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def make_newer(path: Path) -> None:
    """
    Change the format of a journal to that of a newer release.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")


def leave(count: int, first: int = 0) -> None:
    """
    Run a process that publishes `count` events and is killed before any of them is sent.
    """
    done = subprocess.run([sys.executable, "-c", LEAVE, str(first), str(count)], cwd=ROOT, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL


def books() -> Books:
    """
    Return the books of the outbox of the settings.
    """
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        return journal.books()


def ids_in(path: Path) -> list[str]:
    """
    Return the ids of the messages in a journal.
    """
    with Journal.open(path) as journal:
        return [entry.message.properties.message_id for entry in journal.read(0, 1_000_000)]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> int:
    """
    Set a broker at a port that refuses connections, and return the port.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    return refusing_port


# Drain


@pytest.mark.usefixtures("owned")
def test_what_a_killed_process_left_is_drained() -> None:
    """
    One command delivers the events that a killed process has written to disk.
    """
    leave(30)
    before = books()

    told = outbox("drain")

    assert before == Books(published=30, confirmed=0, pending=30, set_aside=0)
    assert books() == Books(published=30, confirmed=30, pending=0, set_aside=0)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("delivered to RabbitMQ at 127.0.0.1:")
    assert told.stdout.endswith(": 30, still pending: 0\n")


def test_a_broker_that_is_not_there_is_one_line(refused: int) -> None:
    """
    Pending messages stay pending, and the exit code is 1.
    """
    leave(3)

    told = outbox("drain")

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(
        f"error: RabbitMQ at 127.0.0.1:{refused} refuses the connection: nothing listens there"
    )
    assert told.stderr.endswith(".db: 3, delivered: 0\n")
    assert told.stderr.count("\n") == 1
    assert books() == Books(published=3, confirmed=0, pending=3, set_aside=0)


def test_the_embedded_journal_has_nothing_to_drain(state_dir: Path) -> None:
    """
    The embedded journal needs no delivery, and the command succeeds.
    """
    told = outbox("drain")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("nothing to drain: MESH_CONFIG names no interservice-bus")
    assert list(state_dir.iterdir()) == []


def test_a_drain_without_a_broker_names_what_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A job that drains at its end must not succeed if a variable is missing.
    """
    path = name_outbox(monkeypatch, "broker.example")
    append_events(2)
    spare = Spare.open(path)
    spare.journal.append([to_message(started("A"), "workflow.events.x")])
    spare.close()
    monkeypatch.delenv("MESH_CONFIG")

    told = outbox("drain")

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("error: MESH_CONFIG names no interservice-bus, and the embedded journal ")
    assert told.stderr.endswith(f"; still pending: 3 in {path}, for RabbitMQ at broker.example:5672, virtual host /\n")


@pytest.mark.once
def test_a_drain_that_is_out_of_time_says_what_it_knows_of_the_broker(
    monkeypatch: pytest.MonkeyPatch, black_hole: BlackHole, refusing_port: int
) -> None:
    """
    The error states that the broker does not answer, or why it could not be reached.
    """
    told = []
    for port in (black_hole.port, refusing_port):
        mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}}
        monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
        append_events(1)
        told.append(outbox("drain", "--timeout", "0.7").stderr)

    assert told[0].startswith("error: the time is over, and the broker has not answered so far; still pending in ")
    assert told[1].startswith(f"error: the time is over; RabbitMQ at 127.0.0.1:{refusing_port} refuses the connection")


def test_a_drain_waits_for_the_process_that_delivers(refused: int) -> None:
    """
    The drain waits until its timeout, and the error names the delivering process.
    """
    del refused
    leave(3)
    lock = FileLock(open_bus(DKISTProcessingCoreConfiguration.read()).journal_path.with_suffix(".lock"))
    lock.acquire()

    told = outbox("drain", "--timeout", "0.5")

    lock.release()
    assert told.returncode == 1
    assert told.stderr.startswith(f"error: the time is over, and process {os.getpid()} delivers; ")
    assert books().pending == 3


def test_ctrl_c_ends_a_drain(monkeypatch: pytest.MonkeyPatch, black_hole: BlackHole, tmp_path: Path) -> None:
    """
    The drain ends at once, and prints the number of pending messages.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": black_hole.port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    append_events(3)
    lock = FileLock(open_bus(DKISTProcessingCoreConfiguration.read()).journal_path.with_suffix(".lock"))

    with running(tmp_path / "log", "drain") as process:
        wait_until(lambda: lock.holder() == process.pid)
        code, took = end(process, signal.SIGINT)

    assert (code, took < CONNECT_SECONDS / 2) == (130, True)
    assert (tmp_path / "log").read_text().startswith("interrupted; still pending in ")
    assert books().pending == 3


def test_messages_that_a_living_process_keeps_aside_are_left_to_it(owned: Broker) -> None:
    """
    Messages in the spare journal of an ended process are delivered, and those of a running process stay with it.
    """
    del owned
    append_events(1)
    path = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    dead, living = Spare.open(path), Spare.open(path)
    for spare in (dead, living):
        spare.journal.append([to_message(started(spare.journal.path.stem), "workflow.events.x")])
    dead.close()

    told = outbox("drain")

    (left,) = listed()["journals"][0]["spares"]
    living.close()
    assert told.returncode == 0
    assert (left["owner"], left["pending"]) == (os.getpid(), 1)
    assert books() == Books(published=2, confirmed=2, pending=0, set_aside=0)


# Relay


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_killed_processes_leave_is_relayed_until_told_to_end(
    number: signal.Signals, tmp_path: Path, state_dir: Path
) -> None:
    """
    The relay delivers earlier and later messages, and ends soon, with exit code 0 and a summary.
    """
    leave(20)

    with running(tmp_path / "log", "relay") as process:
        wait_until(lambda: books().confirmed == 20)
        leave(10, first=20)
        wait_until(lambda: books().confirmed == 30)
        code, took = end(process, number)

    assert (code, took < CONNECT_SECONDS / 2) == (0, True)
    assert books() == Books(published=30, confirmed=30, pending=0, set_aside=0)
    first, last = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(
        rf"INFO \S+: relaying from {re.escape(str(state_dir))}/outbox-\w{{8}}\.db to RabbitMQ at .*", first
    )
    assert last.endswith(": ended; delivered: 30, still pending: 0")


@pytest.mark.once
def test_a_relay_outlives_the_broker(owned: Broker, tmp_path: Path) -> None:
    """
    It logs once that the broker is unreachable and once that it is reachable again, and delivers the messages published
    between.
    """
    log = tmp_path / "log"
    with running(log, "relay") as process:
        append_events(5)
        wait_until(lambda: books().confirmed == 5)
        owned.node.kill()
        append(to_message(started("B"), "workflow.events.x"))
        wait_until(lambda: "Events are kept in" in log.read_text())
        owned.node.start()
        wait_until(lambda: books().confirmed == 6)
        code, _ = end(process)

    assert code == 0
    assert log.read_text().count("can be reached again") == 1
    assert books() == Books(published=6, confirmed=6, pending=0, set_aside=0)


def test_a_relay_waits_for_a_folder_and_survives_its_end(
    owned: Broker, monkeypatch: pytest.MonkeyPatch, state_dir: Path, tmp_path: Path
) -> None:
    """
    The relay does not create the folder, and notices when its file is replaced by a new one.
    """
    del owned
    folder = state_dir / "later"
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))
    log = tmp_path / "log"

    with running(log, "relay") as process:
        wait_until(lambda: "relaying from" in log.read_text())
        was_there = folder.exists()
        append_events(3)
        wait_until(lambda: books().confirmed == 3)
        shutil.rmtree(folder)
        append_events(4)
        wait_until(lambda: books().confirmed == 4)
        code, _ = end(process)

    assert (was_there, code) == (False, 0)
    assert log.read_text().splitlines()[-1].endswith("delivered: 7, still pending: 0")


def test_a_relay_without_a_broker_is_refused() -> None:
    """
    A relay without a broker is a wrong configuration.
    """
    told = outbox("relay")

    assert (told.returncode, told.stderr) == (
        1,
        "error: there is nothing to relay: MESH_CONFIG names no interservice-bus, and no telemetry is exported\n",
    )


# Set aside and retried


def test_what_the_broker_refuses_is_listed_and_retried(owned: Broker) -> None:
    """
    The reason is listed. A message whose cause of refusal was removed is delivered, and the books count all of them.
    """
    AmqpBus(DKISTProcessingCoreConfiguration.read()).open_link().close()
    append_events(2)
    append(Message("workflow.events.x", "k" * 300, b"x", Properties(message_id="m-1", content_type="text/plain")))
    with owned.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        channel.queue_bind("full", "workflow.events.x", "#")
        first = outbox("drain")
        channel.queue_delete("full")
    found = listed("--set-aside")["journals"][0]["messages"]
    shown = asked("list", "--set-aside").stdout
    again = outbox("drain")
    unknown = asked("retry", "2", "77")
    retried = asked("retry", "2")
    second = outbox("drain")

    assert (first.returncode, again.returncode, second.returncode, unknown.exit_code) == (1, 0, 0, 2)
    assert "set aside, since the broker refuses them: 2; dkist-core outbox list --set-aside shows why" in first.stderr
    assert again.stderr.startswith("set aside earlier: 2; dkist-core outbox list --set-aside shows why")
    assert [(each["number"], each["type"], each["id"], each["tries"]) for each in found] == [
        (2, "edu.nso.dkist.task.progressed", progressed("A", 1).id, 3),
        (3, None, "m-1", 3),
    ]
    assert [each["reason"].partition(":")[0] for each in found] == [
        "the broker refused it (nack)",
        "it cannot be sent",
    ]
    assert "  2  task.progressed\n     to workflow.events.x with task.progressed.W.A\n" in shown
    assert "set aside: 2; to make them pending again: dkist-core outbox retry --all\n" in shown
    assert "not set aside in " in unknown.stderr + unknown.output
    assert retried.stdout.endswith(": 1; the next publisher, dkist-core outbox drain or relay delivers them\n")
    assert books() == Books(published=3, confirmed=2, pending=0, set_aside=1)


def test_nothing_to_retry_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command succeeds, and does not report messages as pending again.
    """
    path = name_outbox(monkeypatch, "broker.example")
    append_events(1)

    told = asked("retry", "--all")

    assert (told.exit_code, told.stdout) == (0, f"nothing is set aside in {path}\n")


def test_what_to_retry_has_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command needs numbers or `--all`, and an outbox that exists.
    """
    path = name_outbox(monkeypatch, "broker.example")
    append_events(2)
    with Journal.open(path) as journal:
        journal.record_refusal(1, "why", max_tries=1)
        journal.record_refusal(2, "why", max_tries=1)
    name_outbox(monkeypatch, "elsewhere.example")

    neither, both = asked("retry"), asked("retry", "1", "--all")
    absent = outbox("retry", "--all")
    other = asked("retry", "--all", "--outbox", path.stem.removeprefix("outbox-"))

    assert (neither.exit_code, both.exit_code, absent.returncode) == (2, 2, 1)
    assert absent.stderr.startswith("error: there is no outbox ")
    assert other.stdout.startswith(f"pending again in {path}: 2; ")


# Retarget


@pytest.mark.once
def test_what_waits_for_one_broker_is_moved_to_another(
    owned: Broker, rabbitmq: RabbitMQNode, use: Callable[[Broker], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The messages go to the exchanges of the new broker, and the books of both outboxes are exact.
    """
    monkeypatch.setenv("ISB_EVENT_EXCHANGE", "old.events.x")
    append_events(4)
    source = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    with Journal.open(source) as journal:
        journal.record_refusal(2, "why", max_tries=1)
    monkeypatch.delenv("ISB_EVENT_EXCHANGE")
    with open_broker(rabbitmq) as target:
        use(target)
        append(to_message(started("B"), "workflow.events.x"))
        told = outbox("retarget", source.stem.removeprefix("outbox-"), "--yes")
        moved = books()
        drained = outbox("drain")
        with target.connect() as connection:
            connection.channel().queue_declare("workflow.events.archive.q", passive=True)

    with Journal.open(source) as journal:
        left = journal.books()
    where = f"RabbitMQ at 127.0.0.1:{owned.port}"
    assert told.stdout.splitlines() == [
        "pending: 3, set aside: 1",
        f"from  {where}, virtual host {owned.vhost}, exchanges old.events.x and master.direct.x",
        f"to    {where}, virtual host {target.vhost}",
        "moved: 4; the next publisher, dkist-core outbox drain or relay delivers them",
    ]
    assert moved == Books(published=5, confirmed=0, pending=4, set_aside=1)
    assert left == Books(published=0, confirmed=0, pending=0, set_aside=0)
    assert drained.returncode == 0
    assert books() == Books(published=5, confirmed=4, pending=0, set_aside=1)


def test_nothing_is_lost_when_a_move_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Some messages may then be in both outboxes, with the same id. The remaining ones are moved the next time.
    """
    source = name_outbox(monkeypatch, "old.example")
    append_events(20_000)
    expected = set(ids_in(source))
    target = name_outbox(monkeypatch, "new.example")
    with running(tmp_path / "log", "retarget", str(source), "--yes") as process:
        # A file that is being created has no books yet, which is null in the list.
        wait_until(lambda: target.exists() and bool(listed()["journals"][0]["published"]))
        process.kill()
        process.wait(SECONDS)
    between = (set(ids_in(source)), set(ids_in(target)))

    again = asked("retarget", str(source), "--yes")

    assert again.exit_code == 0
    assert between[0] | between[1] == expected
    assert between[0]
    assert set(ids_in(target)) == expected
    with Journal.open(target) as journal:
        found = journal.books()
    assert found.published == found.pending == len(ids_in(target))


@pytest.mark.once
def test_what_cannot_be_moved_is_refused(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    """
    The error states the reason, and nothing changes.
    """
    append(to_message(started("A"), "workflow.events.x"))
    source = name_outbox(monkeypatch, "old.example")
    append_events(3)
    newer = state_dir / "outbox-0badcafe.db"
    shutil.copy(source, newer)
    make_newer(newer)
    target = name_outbox(monkeypatch, "new.example")
    append_events(1)
    spare = Spare.open(target)
    spare.close()
    lock = FileLock(source.with_suffix(".lock"))
    lock.acquire()

    refusals = {
        str(name): outbox("retarget", str(name), "--yes").stderr
        for name in (source, target, newer, state_dir / "embedded.db", spare.journal.path, "00000000")
    }
    lock.release()
    not_agreed = CliRunner().invoke(app, ["outbox", "retarget", str(source)], input="n\n")

    assert [text.removeprefix("error: ").strip() for text in refusals.values()] == [
        f"{source} is being delivered by process {os.getpid()}: wait for it, or end it",
        f"{target} is the outbox of the present settings already: they have to name the broker to move to",
        f"{newer} was written by a newer release (format 9, this one reads up to {FORMAT_VERSION})",
        f"{state_dir / 'embedded.db'} is no outbox but the embedded journal, whose events wait for no broker",
        f"{spare.journal.path} is a spare journal of one process: the outbox takes over its messages later",
        f"there is no outbox {state_dir / 'outbox-00000000.db'}; dkist-core outbox list shows those that there are",
    ]
    assert not_agreed.exit_code == 1
    assert len(ids_in(source)) == 3


# List


@pytest.mark.once
def test_every_journal_is_listed_and_none_is_changed(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    """
    The list includes unreadable journals, those of killed processes, and spare journals.
    """
    append(to_message(started("A"), "workflow.events.x"))
    other = name_outbox(monkeypatch, "old.example", ISB_VHOST="/dkist", ISB_EVENT_EXCHANGE="ev.x")
    leave(3)
    (state_dir / "outbox-00000000.db").write_text("this is no journal")
    Journal.open(state_dir / "outbox-0badcafe.db").close()
    make_newer(state_dir / "outbox-0badcafe.db")
    monkeypatch.delenv("ISB_EVENT_EXCHANGE")
    current = name_outbox(monkeypatch, "broker.example", ISB_VHOST="/", ISB_PASSWORD=CANARY)
    append_events(5)
    with Journal.open(current) as journal:
        journal.remove_confirmed([1, 2])
        journal.record_refusal(3, f"refused, says amqp://user:{CANARY}@broker", max_tries=1)
        journal.unreachable_until = time.time() + 25
    spare = Spare.open(current)
    spare.journal.append([to_message(started("B"), "workflow.events.x")])
    lock = FileLock(current.with_suffix(".lock"))
    lock.acquire()
    before = contents(state_dir)

    shown, refused = outbox("list"), outbox("list", "--set-aside")
    found = {Path(each["file"]).stem: each for each in json.loads(outbox("list", "--json").stdout)["journals"]}
    after = contents(state_dir)

    lock.release()
    spare.close()
    assert after == before
    assert (shown.returncode, shown.stderr) == (0, "")
    assert list(found) == [current.stem, "embedded", *sorted({"outbox-00000000", "outbox-0badcafe", other.stem})]
    lines = shown.stdout.splitlines()
    at = lines.index("  for RabbitMQ at broker.example:5672, virtual host /")
    assert re.fullmatch(rf"● {current.stem} +5 +2 +2 +1 +\d.*s", lines[at - 1])
    assert lines[at + 1] == f"  process {os.getpid()} is delivering it"
    assert lines[at + 2].startswith("  the broker could not be reached; tasks do not connect to it until ")
    assert re.fullmatch(
        rf"  spare journal {os.getpid()}-\w{{8}}: 1 pending, used by process {os.getpid()}", lines[at + 3]
    )
    assert "  for RabbitMQ at old.example:5672, virtual host /dkist, exchanges ev.x and master.direct.x" in lines
    assert "  the embedded journal, which subscribers read directly; events kept: 1" in lines
    mine = found[current.stem]
    assert (mine["current"], mine["deliveredBy"], mine["spares"][0]["owner"]) == (True, os.getpid(), os.getpid())
    assert mine["published"] == mine["confirmed"] + mine["pending"] + mine["setAside"] == 5
    assert found[other.stem]["destination"] == {
        "host": "old.example",
        "port": 5672,
        "vhost": "/dkist",
        "eventExchange": "ev.x",
        "failureExchange": "master.direct.x",
    }
    assert found[other.stem]["pending"] == 3
    assert found["outbox-00000000"]["problem"].endswith("cannot be used: file is not a database")
    assert "was written by a newer release (format 9" in found["outbox-0badcafe"]["problem"]
    assert "refused, says amqp://" in refused.stdout
    assert re.search(r"(?m)^  outbox-00000000  .* cannot be used: file is not a database", refused.stdout)
    assert CANARY not in shown.stdout + refused.stdout + json.dumps(found)


def test_a_host_without_journals_stays_without(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    """
    A missing folder is no error, and the list does not create it.
    """
    folder = state_dir / "missing"
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))

    told = asked("list")
    refused = asked("list", "--set-aside")

    assert (told.exit_code, refused.exit_code) == (0, 0)
    assert told.stdout.startswith(f"no journals in {folder}\n")
    assert refused.stdout == "nothing is set aside\n"
    assert not folder.exists()


def test_nothing_is_said_to_be_set_aside_only_where_all_could_be_read(state_dir: Path) -> None:
    """
    An unreadable journal may contain such messages, so it is listed with the problem, as text and as JSON.
    """
    (state_dir / "outbox-00000000.db").write_text("this is no journal")

    shown = asked("list", "--set-aside")
    found = listed("--set-aside")

    assert shown.exit_code == 0
    assert re.fullmatch(r"  outbox-00000000  .* cannot be used: file is not a database.*\n\n", shown.stdout)
    assert found["folder"] == str(state_dir)
    (journal,) = found["journals"]
    assert journal["messages"] is None
    assert "file is not a database" in journal["problem"]


def test_a_journal_of_an_older_release_is_listed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first format has no time of refusal. The list does not migrate the file.
    """
    path = name_outbox(monkeypatch, "broker.example")
    append_events(2)
    with Journal.open(path) as journal:
        journal.record_refusal(1, "why", max_tries=1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE message DROP COLUMN refused")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    before = contents(path.parent)

    (found,) = listed("--set-aside")["journals"]

    assert contents(path.parent) == before
    assert (found["pending"], found["setAside"], found["messages"][0]["refusedAt"]) == (1, 1, None)


# The documentation, and the doctor


def alike(text: str) -> str:
    """
    Return a text without the parts that vary.
    """
    for pattern, replacement in VARIES:
        text = pattern.sub(replacement, text)
    return text.strip()


@pytest.mark.once
def test_the_page_about_outages_shows_what_is_printed(
    broker: Broker, use: Callable[[Broker], None], monkeypatch: pytest.MonkeyPatch, refusing_port: int, state_dir: Path
) -> None:
    """
    The commands of the page are run in their order, on a host whose broker has moved.
    """
    blocks = re.findall(r"(?s)```console\n(.*?)```", PAGE.read_text(encoding="utf-8"))
    expected = re.findall(r"(?ms)^\$ dkist-core outbox (.*?)\n(.*?)(?=^\$|\Z)", "".join(blocks))
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    append_events(3)
    digits = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path.stem.removeprefix("outbox-")
    printed: list[tuple[str, str]] = []

    def print_as(words: str) -> None:
        done = outbox(*words.replace("6b0c3a7e", digits).split())
        printed.append((words, (done.stdout + done.stderr).replace(str(state_dir), "/var/lib/dkist")))

    old = dict(os.environ)
    use(broker)
    print_as("list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESH_CONFIG", old["MESH_CONFIG"])
        patch.setenv("ISB_VHOST", "/")
        print_as("drain")
    print_as("retarget 6b0c3a7e --yes")
    print_as("drain")
    append(to_message(started("A"), "workflow.events.x"))
    reason = (
        "refuses a request: PRECONDITION_FAILED - message size 30000 is larger than configured max size 20000 (406)"
    )
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        for _ in range(3):
            journal.record_refusal(4, f"RabbitMQ at {broker.host}:{broker.port} {reason}", max_tries=3)
    print_as("list --set-aside")
    print_as("retry 4")

    assert [(words, alike(text)) for words, text in printed] == [(words, alike(text)) for words, text in expected]


def test_the_page_about_outages_shares_a_folder_so_that_a_group_can_use_it(tmp_path: Path) -> None:
    """
    The command of the page creates a folder that the group may enter, and in which new files belong to the group.
    """
    (called,) = re.findall(r"`(install .*?)`", PAGE.read_text(encoding="utf-8"))
    folder = tmp_path / "shared"

    words = [{"GROUP": str(os.getgid()), "FOLDER": str(folder)}.get(word, word) for word in called.split()]
    subprocess.run(words, check=True, timeout=300)

    assert stat.filemode(folder.stat().st_mode) == "drwxrws---"
    assert file_mode(folder.stat()) == 0o660


def test_the_doctor_tells_of_spare_journals_that_were_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If the outbox cannot take them over yet, the doctor states the number of messages in each, and which command will.
    """
    path = name_outbox(monkeypatch, "broker.invalid")
    append_events(1)
    left, living = Spare.open(path), Spare.open(path)
    for spare in (left, living):
        spare.journal.append([to_message(started("A"), "workflow.events.x")])
    left.close()
    make_newer(path)

    told = CliRunner().invoke(app, ["doctor", "--json"])

    living.close()
    (found,) = [each for each in json.loads(told.stdout)["checks"] if each["name"] == "left behind"]
    assert found["status"] == "skipped"
    assert found["detail"] == (
        f"processes that have ended left messages outside {path}; pending in {left.journal.path.name}: 1"
    )
    assert "the next publisher or `dkist-core outbox drain` takes them over" in found["advice"]


def test_the_doctor_knows_a_spare_journal_from_another_brokers_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The advice names the commands for messages that wait for another broker.
    """
    other = name_outbox(monkeypatch, "old.example")
    append_events(3)
    mine = name_outbox(monkeypatch, "broker.invalid")
    append_events(1)
    living = [Spare.open(path) for path in (mine, other)]
    for spare in living:
        spare.journal.append([to_message(started("A"), "workflow.events.x")])

    told = CliRunner().invoke(app, ["doctor", "--json"])

    for spare in living:
        spare.close()
    (found,) = [each for each in json.loads(told.stdout)["checks"] if each["name"] == "other outbox"]
    assert found["detail"] == f"{other} is for another broker than these settings name; pending: 4"
    assert f"`dkist-core outbox retarget {other.stem.removeprefix('outbox-')}`" in found["advice"]


def test_what_lies_beside_an_outbox_that_cannot_be_used_is_delivered_all_the_same(owned: Broker) -> None:
    """
    The exit code reports the problem of the outbox.
    """
    del owned
    append_events(1)
    path = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    spare = Spare.open(path)
    spare.journal.append([to_message(started("A"), "workflow.events.x")])
    spare.close()
    make_newer(path)

    told = outbox("drain")

    assert told.returncode == 1
    assert "was written by a newer release (format 9" in told.stderr
    assert told.stderr.rstrip().endswith("delivered: 1")
    assert not spare.journal.path.exists()


def test_what_is_beside_an_outbox_is_counted_where_the_broker_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """
    A drain never succeeds while spare journals have messages.
    """
    del refused, monkeypatch
    path = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    append_events(1)
    spare = Spare.open(path)
    spare.journal.append([to_message(started("A"), "workflow.events.x")])
    spare.close()
    make_newer(path)

    told = outbox("drain", "--timeout", "1")

    assert told.returncode == 1
    assert re.search(r"still pending in .*: 1, delivered: 0", told.stderr)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("appended", "yesterday"),
        ("appended", 1e300),
        ("refused", b"\xff"),
        ("tries", "often"),
        ("set_aside", b"\xff\xfe"),
        ("properties", b"\xff"),
        ("properties", "[1]"),
        ("properties", '{"message_id": 5, "content_type": ""}'),
        ("routing_key", 5),
        ("body", 5),
    ],
)
def test_a_row_of_a_wrong_type_is_listed_as_far_as_it_can_be(
    monkeypatch: pytest.MonkeyPatch, column: str, value: object
) -> None:
    """
    The row is listed as text and as JSON, among the others.
    """
    path = name_outbox(monkeypatch, "broker.example")
    append_events(2)
    with Journal.open(path) as journal:
        for number in (1, 2):
            journal.record_refusal(number, "why", max_tries=1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE message SET {column} = ? WHERE seq = 1", (value,))
        connection.commit()

    shown = asked("list", "--set-aside")
    (found,) = listed("--set-aside")["journals"]
    overview = asked("list")

    assert (shown.exit_code, overview.exit_code) == (0, 0)
    assert [each["number"] for each in found["messages"]] == [1, 2]


def test_damaged_files_are_shown_by_list_and_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    They are shown, with the number of messages taken over from each, until an operator removes them.
    """
    path = name_outbox(monkeypatch, "broker.invalid")
    append_events(3)
    os.truncate(path, path.stat().st_size - PAGE_SIZE)
    append_events(1)
    (aside,) = damaged_of(path)

    shown = asked("list").stdout
    (found,) = listed()["journals"]
    checks = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]

    (check,) = [each for each in checks if each["name"] == "damaged"]
    assert f"damaged, set aside as {aside.name}; messages taken over: " in shown
    assert [each["file"] for each in found["damaged"]] == [str(aside)]
    assert check["status"] == "wrong"
    assert str(aside) in check["detail"]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo], ids=["link", "pipe"])
def test_a_lock_that_cannot_be_used_is_the_reason_that_is_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, make: Callable[[Path], object]
) -> None:
    """
    No broker is tried then. The log, the list, the drain and the doctor show the lock as the reason.
    """
    lock = name_outbox(monkeypatch, "broker.example").with_suffix(".lock")
    lock.parent.mkdir(exist_ok=True)
    make(lock)

    began = time.monotonic()
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"))
    took = time.monotonic() - began

    reason = f"the lock's file {lock} cannot be used: {lock}: found "
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("1 event waits in ")
    assert warning.endswith(". The next publisher or `dkist-core outbox drain` delivers it")
    assert f".db: {reason}" in warning
    assert took < publisher._flush_timeout
    assert f"this user cannot deliver it: {reason}" in asked("list").stdout
    assert listed()["journals"][0]["problem"].startswith(reason)
    assert f"error: {reason}" in asked("drain").stderr
    assert f"✗ delivery      {reason}" in CliRunner().invoke(app, ["doctor"]).stdout
