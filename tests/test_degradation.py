"""
Journals that cannot be written to: locked, full, of a newer release, or without a folder.

Not here: brokers that cannot be reached (test_delivery.py).
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Books
from dkist_processing_core.journal._format import FORMAT_VERSION
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.spare import spares_of, take_over_spares
from tests.bus.contract import SECONDS
from tests.facts import finished, progressed, started
from tests.running import run_python
from tests.services.broker import Broker
from tests.test_delivery import LIMIT, books_of, settings_of, unreachable, warnings_in
from tests.waiting import wait_until


@pytest.fixture
def embedded() -> DKISTProcessingCoreConfiguration:
    """
    The settings of the embedded journal.
    """
    return DKISTProcessingCoreConfiguration()


def locked(settings: DKISTProcessingCoreConfiguration) -> sqlite3.Connection:
    """
    Return a connection that holds the journal's lock until it is closed.
    """
    connection = sqlite3.connect(open_bus(settings).journal_path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def ids_in(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Return the ids of the messages in the journal, in its order.
    """
    with open_bus(settings).open_journal() as journal:
        return [entry.message.properties.message_id for entry in journal.read(0, 1000)]


def test_a_locked_journal_delays_by_the_limit_in_all_and_loses_nothing(
    embedded: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Five events at a journal that is never free: two seconds in total, one warning, and the next process delivers them
    all.
    """
    publisher = Publisher.open(embedded)
    holder = locked(embedded)
    events = [started("A"), *(progressed("A", number) for number in range(3)), finished("A")]

    began = time.monotonic()
    for event in events:
        publisher.publish(event)
    publisher.close(LIMIT)
    elapsed = time.monotonic() - began
    (spare,) = spares_of(publisher.bus.journal_path)
    holder.close()

    # A wait for each of them would be five times the limit.
    assert elapsed < 2 * LIMIT
    (told,) = warnings_in(caplog)
    assert told.endswith(
        f"embedded.db cannot be used: database is locked. Events are kept in {spare} until it can be used."
    )
    assert ids_in(embedded) == [event.id for event in events]
    assert sorted(path.name for path in spare.parent.iterdir() if path.stem != "embedded") == []


def test_a_locked_journal_is_waited_for_once_in_a_process(embedded: DKISTProcessingCoreConfiguration) -> None:
    """
    Publishers in turn, as in Airflow's callbacks: the first one waits, and a later one only if the journal was free in
    between.
    """
    waited = []
    open_bus(embedded).open_journal().close()
    for is_locked in (True, True, False, True):
        with ExitStack() as stack:
            if is_locked:
                stack.enter_context(closing(locked(embedded)))
            publisher = stack.enter_context(Publisher.open(embedded, wait_limit=0.2))
            publisher.publish(started("A"))
            publisher.remember("a note")
            waited.append(publisher.waited)

    assert waited[1:3] == [0.0, 0.0]
    assert 0.05 < waited[0] < 0.15
    assert 0.05 < waited[3] < 0.15


def test_what_was_kept_beside_the_journal_comes_first_when_it_is_free(
    embedded: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The order of the messages is kept, and no spare file remains.
    """
    publisher = Publisher.open(embedded)
    holder = locked(embedded)
    publisher.publish(started("A"))
    publisher.publish(progressed("A", 0))
    holder.close()
    publisher.publish(progressed("A", 1))
    holder = locked(embedded)
    publisher.publish(finished("A"))
    holder.close()
    publisher.close()

    assert ids_in(embedded) == [
        event.id for event in (started("A"), progressed("A", 0), progressed("A", 1), finished("A"))
    ]
    assert spares_of(publisher.bus.journal_path) == []
    assert not [text for text in warnings_in(caplog) if "lost" in text]


def test_a_living_process_keeps_its_spare_journal(embedded: DKISTProcessingCoreConfiguration) -> None:
    """
    Another process would break the order of its messages; when it ends, the next process moves them.
    """
    publisher = Publisher.open(embedded)
    # A keeper that does not move its messages, as in a stopped process.
    publisher._shelf._end.raise_()
    with closing(locked(embedded)):
        publisher.publish(started("A"))
        publisher.publish(finished("A"))
    before = ids_in(embedded)
    assert publisher._shelf._overflow._spare is not None
    # The kernel does this for a killed process.
    publisher._shelf._overflow._spare.close()
    after = ids_in(embedded)
    publisher._shelf._overflow._spare = None
    publisher.close()

    assert (before, after) == ([], [started("A").id, finished("A").id])


def test_the_locks_of_spare_journals_that_are_gone_are_removed(embedded: DKISTProcessingCoreConfiguration) -> None:
    """
    This includes the locks after a storm of processes. A new lock stays, and so does a held one.
    """
    with open_bus(embedded).open_journal() as journal:
        left, young, held = (journal.path.with_suffix(f".{number}-0a0a0a0a.lock") for number in (1, 2, 3))
        for path in (left, young, held):
            path.touch()
        for path in (left, held):
            os.utime(path, (0, 0))
        lock = FileLock(held)
        assert lock.acquire()

        take_over_spares(journal)

        assert [path.exists() for path in (left, young, held)] == [False, True, True]
        lock.release()


def test_a_newer_journal_is_left_alone_and_events_are_kept_for_it(
    embedded: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    On a host with two releases, the older one loses nothing, and the newer one uses the journal.
    """
    bus = open_bus(embedded)
    bus.open_journal().close()

    def become(version: int) -> None:
        connection = sqlite3.connect(bus.journal_path)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()

    become(FORMAT_VERSION + 1)
    before = bus.journal_path.read_bytes()
    with Publisher.open(embedded) as publisher:
        publisher.publish(started("A"), finished("A"))
    (told,) = warnings_in(caplog)
    untouched = bus.journal_path.read_bytes() == before
    become(FORMAT_VERSION)

    assert untouched
    assert "was written by a newer release" in told
    # A reader takes over what the process has left, for a limited time.
    wait_until(lambda: ids_in(embedded) == [started("A").id, finished("A").id])


OLDER = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, appended REAL NOT NULL, exchange TEXT NOT NULL, routing_key TEXT NOT NULL,
    properties TEXT NOT NULL, body BLOB NOT NULL, tries INTEGER NOT NULL DEFAULT 0, set_aside TEXT
);
CREATE INDEX pending ON message (seq) WHERE set_aside IS NULL;
CREATE TABLE sent_once (message_id TEXT PRIMARY KEY, appended REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE subscription (name TEXT PRIMARY KEY, position INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letter (subscription TEXT NOT NULL, seq INTEGER NOT NULL, dead REAL NOT NULL, reason TEXT NOT NULL,
    message_id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (subscription, seq)) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO fact VALUES ('confirmed', 7), ('unreachable_until', 0), ('destination', '');
INSERT INTO message (seq, appended, exchange, routing_key, properties, body)
    VALUES (8, 1.0, 'workflow.events.x', 'task.started.W.A', '{"message_id": "m", "content_type": ""}', x'62');
PRAGMA application_id = 0x444B4A4E;
PRAGMA user_version = 1;
"""


def test_an_older_journal_is_drained(broker: Broker) -> None:
    """
    Messages of format 1 are delivered, with their counts, and new events are stored in it.
    """
    settings = settings_of(broker)
    with sqlite3.connect(open_bus(settings).journal_path) as connection:
        connection.executescript(OLDER)
    connection.close()

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=9, confirmed=9, pending=0, set_aside=0)


FULL = """
import resource, signal, sys, time
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed
settings = DKISTProcessingCoreConfiguration()
publisher = Publisher.open(settings)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
began = time.monotonic()
for number in range(200):
    publisher.publish(progressed("A", number))
assert time.monotonic() - began < 10
if sys.argv[1:] == ["room"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
publisher.close(float(10))
# For what others write as the process ends, such as its coverage.
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


def on_a_full_disk(room: str, environment: dict[str, str]) -> list[str]:
    """
    Publish 200 events in a process whose files may not grow, and return its lines of warning.
    """
    program = FULL.replace('sys.argv[1:] == ["room"]', str(room == "room"))
    done = run_python(program, environment)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_a_full_disk_is_memory_with_one_warning(embedded: DKISTProcessingCoreConfiguration, state_dir: Path) -> None:
    """
    Publishing does not wait, and events kept in memory are written when there is room.
    """
    lines = on_a_full_disk("room", {})

    (told,) = lines
    assert "embedded.db cannot be used: " in told
    assert told.endswith("Events are kept in memory until it can be used.")
    assert ids_in(embedded) == [progressed("A", number).id for number in range(200)]
    assert not list(state_dir.glob("embedded.*.db"))


def test_a_disk_that_stays_full_does_not_keep_events_from_the_broker(broker: Broker) -> None:
    """
    They are sent from memory: an event is only lost if the disk and the broker fail at the same time.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("seen")
        channel.queue_bind("seen", "workflow.events.x", "#")

        lines = on_a_full_disk("", broker.env)
        received = {body[2].decode() for body in iter(lambda: channel.basic_get("seen", auto_ack=True), (None,) * 3)}

    causes = [line.partition(" cannot be used: ")[2] for line in lines]
    # On a slow machine, the thread that delivers may have had the journal for longer than the publisher waits.
    (cause,) = [cause for cause in causes if not cause.startswith("database is locked.")]
    assert cause.endswith("Events are kept in memory until it can be used.")
    assert {json.loads(body)["id"] for body in received} == {progressed("A", number).id for number in range(200)}


def test_without_a_folder_events_go_out_from_memory(broker: Broker, tmp_path: Path) -> None:
    """
    If the folder cannot be created, events are not kept on disk, but a healthy broker receives them.
    """
    (tmp_path / "file").write_text("")
    settings = settings_of(broker).model_copy(update={"dkist_core_state_dir": tmp_path / "file" / "state"})

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), finished("A"))

        assert publisher.flush(SECONDS)


def test_what_neither_disk_nor_broker_has_is_counted(
    tmp_path: Path, refusing_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    At the end one line states how many events are lost; the task is not disturbed.
    """
    (tmp_path / "file").write_text("")
    settings = unreachable(refusing_port).model_copy(update={"dkist_core_state_dir": tmp_path / "file" / "state"})

    publisher = Publisher.open(settings)
    publisher.publish(started("A"), finished("A"))
    began = time.monotonic()
    publisher.close(LIMIT)

    assert time.monotonic() - began < 2 * LIMIT
    assert warnings_in(caplog)[-1] == f"2 events are lost: {publisher.bus.journal_path} could not be written to"


def test_an_unusable_folder_is_one_cause_however_many_publishers_meet_it(
    tmp_path: Path, refusing_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A process logs the cause once, and a process that another one starts and observes leaves it to that one.
    """
    (tmp_path / "file").write_text("")
    settings = unreachable(refusing_port).model_copy(update={"dkist_core_state_dir": tmp_path / "file" / "state"})

    for delivers in (False, True, True):
        with Publisher.open(settings, delivers=delivers) as publisher:
            publisher.publish(started("A"))

    assert [line.endswith("Events are kept in memory until it can be used.") for line in warnings_in(caplog)].count(
        True
    ) == 1


def test_what_waits_for_the_journal_s_lock_is_in_its_books(broker: Broker) -> None:
    """
    A publish that waits for another process writes only to the journal: the arrivals match the counts.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher, broker.connect() as connection:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        channel = connection.channel()
        channel.queue_declare("seen")
        channel.queue_bind("seen", "workflow.events.x", "#")
        holder = locked(settings)
        waiting = threading.Thread(target=publisher.publish, args=[progressed("A", number) for number in range(5)])
        waiting.start()
        assert publisher._drainer is not None
        publisher._drainer.wake()
        waiting.join(0.3)
        held_up = waiting.is_alive()
        holder.close()
        waiting.join()
        assert publisher.flush(SECONDS)

        arrived = sum(1 for _ in iter(lambda: channel.basic_get("seen", auto_ack=True)[0], None))
        assert (held_up, arrived) == (True, 5)
    assert books_of(settings) == Books(published=6, confirmed=6, pending=0, set_aside=0)


def test_a_run_counts_the_lost_events_of_all_its_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    One line has the number: two events of the run, and four of each of its two attempts, by launchers and tasks.
    """
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(tmp_path / "file" / "state"))
    (tmp_path / "lossy.py").write_text(
        "from dkist_processing_core import TaskBase, Workflow\n"
        "class A(TaskBase):\n"
        "    def run(self): self.progress(1, 2)\n"
        "class B(A): pass\n"
        "workflow = Workflow(process_category='lossy', process_name='run')\n"
        "workflow.add_node(A)\n"
        "workflow.add_node(B, upstreams=A)\n"
    )

    shown = subprocess.run(
        [sys.executable, "-m", "dkist_processing_core.cli", "run", "lossy", "--recipe-run-id", "1"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stderr  # fmt: skip

    lines = [line for line in shown.splitlines() if " lost: " in line]
    assert [line.partition(": ")[2].partition(" lost")[0] for line in lines] == ["10 events are"], shown
