"""
The embedded journal: the contract of a bus, and the behaviour that only a file on this host has.
"""

import itertools
import json
import multiprocessing
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.embedded import KEPT_SECONDS, JournalBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import JournalError, JournalVersionError
from dkist_processing_core.events import TaskProgressed
from dkist_processing_core.journal import Books, Journal, _journal
from dkist_processing_core.journal._format import FORMAT_VERSION
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.message import Message, Properties, to_message
from dkist_processing_core.journal.place import file_system, place
from dkist_processing_core.journal.retention import MOST_AT_ONCE, HostTime, keep, last_before
from dkist_processing_core.journal.subscription import NamedSubscription
from dkist_processing_core.journal.takeover import take_over
from tests.bus.contract import SECONDS, SharedBusContract
from tests.facts import finished, progressed, started
from tests.hostile import next_with_little_memory, too_large


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    The settings of a host without a broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


class TestJournalBus(SharedBusContract):
    """
    The contract, on one SQLite file.
    """


def test_the_journal_is_the_bus_where_no_broker_is_named(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Without `interservice-bus` in MESH_CONFIG only the embedded journal is used.
    """
    assert isinstance(open_bus(settings), JournalBus)


def test_every_commit_is_synced(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The connection in use has WAL and synchronous FULL, so that a published event survives a crash of the machine.
    """
    publisher = Publisher.open(settings)

    assert publisher._shelf.journal is not None
    pragma = publisher._shelf.journal._connection.execute

    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pragma("PRAGMA synchronous").fetchone() == (2,)
    publisher.close()


def test_files_are_for_their_owner_only(settings: DKISTProcessingCoreConfiguration, state_dir: Path) -> None:
    """
    A new folder has mode 0700, and every file in it 0600.
    """
    settings = settings.model_copy(update={"dkist_core_state_dir": state_dir / "made"})
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        folder = place(settings).folder
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert {0o600} == modes
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_with_the_setgid_bit_is_shared_with_its_group(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    In a folder created for several users, files have mode 0660 with any umask.
    """
    folder = place(settings).folder
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o2770)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert {0o660} == modes


def _append_many(settings: DKISTProcessingCoreConfiguration, task_name: str, count: int) -> None:
    # On a busy machine, four processes wait for each other for longer than a publisher waits by default.
    with Publisher.open(settings, wait_limit=SECONDS) as publisher:
        for number in range(count):
            publisher.publish(progressed(task_name, number))


def test_several_processes_write_and_each_ones_order_is_kept(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Four processes append at once while one reads: everything arrives, in order per process.
    """
    context = multiprocessing.get_context("spawn")
    names, count = ("A", "B", "C", "D"), 50
    receiver = open_bus(settings).subscribe(["#"])

    writers = [context.Process(target=_append_many, args=(settings, name, count)) for name in names]
    for writer in writers:
        writer.start()
    received = [receiver.receive(SECONDS) for _ in range(count * len(names))]
    for writer in writers:
        writer.join(SECONDS)

    ids = [delivery.message.properties.message_id for delivery in received if delivery]
    for name in names:
        expected = [progressed(name, number).id for number in range(count)]
        assert expected == [identifier for identifier in ids if identifier in expected]
    receiver.close()


def test_one_receiver_of_a_name_is_active_and_another_takes_over(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Receivers of one name never both get an event; the standby one continues where the other stopped.
    """
    bus = open_bus(settings)
    first, second = bus.subscribe(["#"], name="n"), bus.subscribe(["#"], name="n")
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), started("B"))

    delivery = first.receive(SECONDS)
    assert delivery is not None
    delivery.acknowledge()
    assert second.receive(0.1) is None
    first.close()
    taken_over = second.receive(SECONDS)

    assert taken_over is not None
    assert started("B").id == taken_over.message.properties.message_id
    second.close()


def test_an_undecodable_message_is_kept_with_its_reason(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    A named subscription's dead letters hold body and reason.
    """
    bus = open_bus(settings)
    with Publisher.open(settings) as publisher:
        receiver = bus.subscribe(["#"], name="n")
        publisher.publish(started("A"))

    delivery = receiver.receive(SECONDS)
    assert delivery is not None
    delivery.dead_letter("because")

    with bus.open_journal() as journal:
        assert [("because", delivery.message.body)] == NamedSubscription(journal, "n").dead_letters()
    receiver.close()


def host_at(days: float) -> HostTime:
    """
    Return the time of this host in that many days.
    """
    now, seconds = HostTime.now(), days * 24 * 3600
    return HostTime(now.seconds + seconds, now.wall + seconds)


def test_a_message_whose_properties_cannot_be_read_is_not_left_out(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its body has the event: one that is readable is received, and another is reported like any message that is no event.
    """
    with Publisher.open(settings) as publisher:
        publisher.publish(progressed("A", 1), progressed("A", 2))
    with sqlite3.connect(open_bus(settings).journal_path) as connection:
        connection.execute("UPDATE message SET properties = 'no JSON'")
        connection.execute("UPDATE message SET body = 'no JSON' WHERE seq = 2")
    connection.close()

    with subscribe(replay=True, timeout=0.0, settings=settings) as events:
        received = [event.sequence for event in events if isinstance(event, TaskProgressed)]

    assert received == [1]
    assert "1 message is no event and was passed over" in caplog.text


def test_old_messages_go_and_young_ones_stay(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Pruning removes messages older than the given age, and the counts still include them.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(started("A"), "x")])
        keep(journal, KEPT_SECONDS, host=host_at(1))
        journal.append([to_message(finished("A"), "x")])
        keep(journal, KEPT_SECONDS, host=host_at(2))

        keep(journal, KEPT_SECONDS, host=host_at(8.5))

        assert [finished("A").id] == [entry.message.properties.message_id for entry in journal.read(0, 10)]
        assert journal.books() == Books(published=2, confirmed=0, pending=1, set_aside=0)


def test_a_clock_that_is_ahead_removes_nothing(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    It removes neither earlier messages nor its own, nor a subscription's position.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(50)])
        NamedSubscription(journal, "ops").position(0)
        journal.append([to_message(progressed("B", 0), "x")])
        journal.write("UPDATE message SET appended = appended + 864000 WHERE seq = 51")
        for hours in range(24):
            keep(journal, KEPT_SECONDS, host=host_at(hours / 24))

        assert len(journal.read(0, 100)) == 51
        assert NamedSubscription(journal, "ops").position(7) == 0


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((400, 0), id="a host that has run for a year"),
        pytest.param((-400, 0), id="a host that was started just now"),
        pytest.param((0, 400), id="a clock that is ahead"),
        pytest.param((0, -400), id="a clock that is behind"),
    ],
)
def test_what_one_clock_alone_says_ages_nothing(
    settings: DKISTProcessingCoreConfiguration, other: tuple[float, float]
) -> None:
    """
    Neither the clock of another host or container nor a wrong one ages a message; only the agreement of both does.
    """
    days = 24 * 3600
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(50)])
        NamedSubscription(journal, "ops").position(0)
        for hours in range(24):
            here = host_at(hours / 24)
            keep(journal, KEPT_SECONDS, host=here)
            there = HostTime(max(0.0, here.seconds + other[0] * days) + hours, here.wall + other[1] * days)
            keep(journal, KEPT_SECONDS, host=there)
        whole, young = len(journal.read(0, 100)), journal.clock() - time.time()
        marks = len(json.loads(str(journal.value_of("marks"))))

        for day in range(2, 13):
            keep(journal, KEPT_SECONDS, host=host_at(day))
        old = journal.clock() - time.time()

        assert whole == 50
        assert 0 <= young <= days
        assert marks <= 25
        assert 10 * days <= old - young <= 12 * days


def test_a_busy_file_s_clock_is_known_all_the_same(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    A process records nothing by its own clock.
    """
    with open_bus(settings).open_journal() as journal:
        keep(journal, KEPT_SECONDS, host=host_at(100))
    with Journal.open(journal.path) as journal, closing(sqlite3.connect(journal.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        keep(journal, KEPT_SECONDS, host=host_at(101))

        assert journal.clock() > time.time() + 100 * 24 * 3600


def test_what_a_named_subscription_has_not_read_stays_up_to_its_limit(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Beyond it the oldest are deleted. The next read states exactly how many events of its selection were missed.
    """
    bus = open_bus(settings)
    with subscribe("task.progressed", name="ops", settings=settings):
        pass
    with Publisher.open(settings) as publisher:
        publisher.publish(*[started(f"T{number}") for number in range(10)])
        publisher.publish(*[progressed("A", number) for number in range(20)])
    with bus.open_journal() as journal:
        keep(journal, KEPT_SECONDS, limit=30, host=host_at(1))
        ops = NamedSubscription(journal, "ops")
        ops.renew()
        keep(journal, KEPT_SECONDS, limit=30, host=host_at(5))
        ops.advance(0)
        keep(journal, KEPT_SECONDS, limit=30, host=host_at(9))
        whole = len(journal.read(0, 100))
        keep(journal, KEPT_SECONDS, limit=15, host=host_at(9))

    with bus.subscribe(("task.progressed.#",), name="ops") as receiver:
        found = [each.message.properties.message_id for each in iter(lambda: receiver.receive(0.0), None)]
        missed = vars(receiver)["missed"]

    assert whole == 30
    assert found == [progressed("A", number).id for number in range(5, 20)]
    assert missed == 5
    assert [record.getMessage() for record in caplog.records if "missed" in record.getMessage()] == [
        "the subscription 'ops' has missed 5 events, which became too old before it read them"
    ]


def test_one_opening_removes_a_bounded_number_of_rows(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The next openings remove the rest.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(2 * MOST_AT_ONCE + 5)])
        keep(journal, KEPT_SECONDS, host=host_at(1))
        left = []
        for _ in range(3):
            keep(journal, KEPT_SECONDS, host=host_at(9))
            left.append(journal.books().pending)

        assert left == [MOST_AT_ONCE + 5, 5, 0]


def steps(journal: Journal, action: Callable[[], object]) -> int:
    """Return the number of steps of SQLite's engine that an action takes."""
    counted = itertools.count()
    journal._connection.set_progress_handler(lambda: next(counted) < 0, 1)
    action()
    journal._connection.set_progress_handler(None, 0)
    return next(counted)


def test_opening_a_journal_costs_the_same_however_much_lies_there(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Counted in steps of SQLite's engine: kept and removed rows, the counts and the oldest row.
    """
    with open_bus(settings).open_journal() as journal:
        costs = []
        for size in (500, 5000):
            journal.append([to_message(progressed("A", number), "x") for number in range(size)])
            keep(journal, KEPT_SECONDS, host=host_at(size / 1000))
            journal.append([to_message(started("A"), "x")])
            keep(journal, KEPT_SECONDS, host=host_at(size / 1000 + 0.1))
            costs.append(
                {
                    "books": steps(journal, journal.books),
                    "oldest": steps(journal, lambda: journal.oldest),
                    "keep": steps(journal, lambda: keep(journal, KEPT_SECONDS, host=host_at(5.11))),
                }
            )

        few, many = costs
        assert {name: many[name] <= few[name] + 200 for name in few} == dict.fromkeys(few, True)


def indexes(journal: Journal) -> list[str]:
    """Return the names of the indexes of a journal."""
    return [name for (name,) in journal.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")]


def test_many_messages_that_are_set_aside_do_not_slow_the_first_read(tmp_path: Path) -> None:
    """
    An index passes over them. It exists only while many are set aside, because each message would write to it.
    """
    with Journal.open(tmp_path / "outbox.db") as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(2000)])
        costs, found = [], []
        for count in (10, 2000):
            journal.write("UPDATE message SET set_aside = 'no' WHERE seq < ?", count)
            journal.record_refusal(count, "no", max_tries=1)
            found.append(indexes(journal))
            (kept,) = journal.append([to_message(started("A"), "x")])
            costs.append(steps(journal, lambda: (journal.pending(0, 1), journal.oldest)))
        entries = journal.pending(0, 10)
        journal.retry([1])
        found.append(indexes(journal))
        retried = journal.retry()
        found.append(indexes(journal))
        books = journal.books()

    assert costs[1] <= costs[0] + 20
    assert found == [[], ["pending"], ["pending"], []]
    assert [entry.seq for entry in entries] == [2001, kept]
    assert (retried, books) == (1999, Books(published=2002, confirmed=0, pending=2002, set_aside=0))


def test_few_messages_that_are_set_aside_beside_many_pending_add_no_index(tmp_path: Path) -> None:
    """
    Its creation would read all rows, while publishers wait.
    """
    with Journal.open(tmp_path / "outbox.db") as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(11_000)])
        journal.write("UPDATE message SET set_aside = 'no' WHERE seq < 1000")
        journal.record_refusal(1000, "no", max_tries=1)
        few = indexes(journal)
        journal.write("UPDATE message SET set_aside = 'no' WHERE seq < 2000")
        journal.record_refusal(2000, "no", max_tries=1)

        assert (few, indexes(journal)) == ([], ["pending"])


def test_a_journal_of_the_format_before_has_exact_books(tmp_path: Path) -> None:
    """
    It is converted with its counts, and listing reads it unconverted.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(10)])
        journal.remove_confirmed([1, 2])
        journal.record_refusal(3, "no", max_tries=1)
        for name in ("added", "noted", "retried", "removed"):
            journal.write(f"DROP TRIGGER aside_{name}")
        journal.write("DELETE FROM fact WHERE name IN ('set_aside', 'pruned')")
        journal.write("PRAGMA user_version = 2")

    looked_at = Journal.look(path, Journal.books)
    with Journal.open(path) as journal:
        opened = journal.books()
        journal.retry()
        retried = journal.books()

    assert looked_at == opened == Books(published=10, confirmed=2, pending=7, set_aside=1)
    assert retried == Books(published=10, confirmed=2, pending=8, set_aside=0)


def test_a_clock_that_was_set_back_hides_nothing_that_is_recent(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    A start time is compared with the recorded order of the rows.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(progressed("old", 0), "x")])
        journal.write("UPDATE message SET appended = appended - 36000")
        keep(journal, KEPT_SECONDS, host=host_at(1))
        journal.append([to_message(progressed("before", number), "x") for number in range(5)])
        journal.append([to_message(progressed("after", number), "x") for number in range(5)])
        # As if the clock had been set back by an hour between the two.
        journal.write("UPDATE message SET appended = appended - 3600 WHERE seq > 6")
        now = host_at(1 + 1 / 24)
        keep(journal, KEPT_SECONDS, host=now)

        assert last_before(journal, time.time() - 1800, host=now) == 1
        assert last_before(journal, time.time() - 7200, host=now) == 1


def test_a_newer_format_is_refused_and_left_untouched(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Only a newer release can read a file of a newer release.
    """
    bus = open_bus(settings)
    bus.open_journal().close()
    connection = sqlite3.connect(bus.journal_path)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    connection.close()
    before = bus.journal_path.read_bytes()

    newer = rf"written by a newer release \(format {FORMAT_VERSION + 1}, this one reads up to {FORMAT_VERSION}\)"
    with pytest.raises(JournalVersionError, match=newer):
        bus.open_journal()

    assert before == bus.journal_path.read_bytes()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 100, None])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """
    Neither garbage nor another program's database is taken for a journal, and the error names the file.
    """
    path = tmp_path / "embedded.db"
    if content is not None:
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 1")
        connection.close()

    with pytest.raises(JournalError, match=r"embedded\.db"):
        Journal.open(path)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """
    The error names the folder and the variable to set.
    """
    (tmp_path / "file").write_text("")
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=tmp_path / "file" / "state")

    with pytest.raises(JournalError, match=r"file/state cannot be created: Not a directory; set DKIST_CORE_STATE_DIR"):
        open_bus(settings).open_journal()


def test_journals_leave_a_memory_file_system() -> None:
    """
    On a file system that a restart empties, journals move to /var/tmp, with one warning.
    """
    assert file_system(Path("/dev/shm")) == "tmpfs"  # Linux mounts it there: see shm_overview(7)
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=Path("/dev/shm/dkist-core-test"))

    where = place(settings)

    assert where.folder.parent == Path("/var/tmp")
    assert where.moved_from == Path("/dev/shm/dkist-core-test")
    assert where.reason == "/dev/shm/dkist-core-test is on a memory file system (tmpfs)"


def test_a_lock_ends_with_the_process_that_took_it_not_with_its_forks(tmp_path: Path) -> None:
    """
    A fork neither keeps its parent's lock nor releases it.
    """
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.acquire()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    assert not other.acquire()

    lock.release()

    assert other.acquire()
    other.release()
    os.close(write_end)
    os.close(read_end)
    os.waitpid(child, 0)


def test_the_first_opening_waits_for_another_s(tmp_path: Path) -> None:
    """
    SQLite's own waiting does not cover the change of a file to WAL, so one of several first openings would fail.
    """
    path = tmp_path / "embedded.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened: list[Journal] = []
    opening = threading.Thread(target=lambda: opened.append(Journal.open(path)))

    opening.start()
    opening.join(0.2)
    assert opening.is_alive()
    other.execute("COMMIT")
    opening.join(SECONDS)

    assert opened[0].books().published == 0
    opened[0].close()
    other.close()


def test_a_fork_waits_for_a_transaction_of_another_thread(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    A child would inherit SQLite's lock as held, and could never write.
    """
    publisher = Publisher.open(settings)
    journal = open_bus(settings).open_journal()
    is_inside, has_forked = threading.Event(), threading.Event()

    def slow_messages() -> Iterator[Message]:
        is_inside.set()
        has_forked.wait(0.5)
        yield to_message(started("A"), "x")

    writer = threading.Thread(target=lambda: journal.append(slow_messages()))
    writer.start()
    assert is_inside.wait(SECONDS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            publisher.publish(started("B"))
            status = 2 if publisher.is_pending else 0
        finally:
            os._exit(status)
    has_forked.set()
    writer.join(SECONDS)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert journal.books().published == 2
    journal.close()
    publisher.close()


def test_a_subscription_that_listens_is_not_forgotten(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Pruning forgets names that were not used for ten weeks. Listening is use, even if no event matches.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(started("A"), "x")])
        listening, gone = NamedSubscription(journal, "listening"), NamedSubscription(journal, "gone")
        listening.position(0, "[]")
        gone.position(0, "[]")
        keep(journal, KEPT_SECONDS, host=host_at(1))
        journal._connection.execute("UPDATE subscription SET used = used - 1")
        keep(journal, KEPT_SECONDS, host=host_at(68))

        listening.renew()
        listening.renew()
        keep(journal, KEPT_SECONDS, host=host_at(71))

        assert journal._connection.execute("SELECT name FROM subscription").fetchall() == [("listening",)]
        assert (journal.value_of("wanted listening"), journal.value_of("wanted gone")) == ("[]", None)
        gone.advance(1)
        assert gone.position(0) == 1


def test_a_name_that_was_away_for_long_reads_what_is_there_and_learns_what_it_lost(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It keeps its position, and holds no events any more: each of them is read or counted, in one warning.
    """
    bus = open_bus(settings)
    with subscribe("task.progressed", name="ops", settings=settings):
        pass
    with bus.open_journal() as journal, Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number) for number in range(20)])
        keep(journal, KEPT_SECONDS, host=host_at(1))
        publisher.publish(*[progressed("A", number) for number in range(20, 50)])
        keep(journal, KEPT_SECONDS, host=host_at(6))
        unread = len(journal.read(0, 100))
        keep(journal, KEPT_SECONDS, host=host_at(9))

    with subscribe("task.progressed", name="ops", timeout=0.0, settings=settings) as events:
        found = [each.done for each in events]  # type: ignore[attr-defined]
        missed = events.missed
    with subscribe("task.progressed", name="ops", timeout=0.0, settings=settings) as events:
        assert (list(events), events.missed) == ([], 0)

    assert unread == 50
    assert (found, missed) == (list(range(20, 50)), 20)
    assert [record.getMessage() for record in caplog.records if "missed" in record.getMessage()] == [
        "the subscription 'ops' has missed 20 events, which became too old before it read them"
    ]


def test_a_host_that_opens_its_journal_seldom_and_appends_much_does_not_fill_it(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    Each opening removes more than was appended since the one before.
    """
    with open_bus(settings).open_journal() as journal:
        held = []
        for opening in range(24):
            keep(journal, KEPT_SECONDS, host=host_at(1 + opening))
            journal.append([to_message(progressed("A", number), "x") for number in range(700)])
            held.append(journal.books().pending)

        assert max(held) <= 9 * 700


def test_another_program_s_file_without_a_version_is_refused(tmp_path: Path) -> None:
    """
    A database without a format number that has tables is not used.
    """
    path = tmp_path / "embedded.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (value)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(JournalError, match=r"embedded\.db is an SQLite file of something else, not a journal"):
        Journal.open(path)

    assert before == path.read_bytes()


def test_a_folder_in_a_home_that_does_not_exist_is_one_clear_error() -> None:
    """
    The error names the variable to set.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=Path("~no-such-user/state"))

    with pytest.raises(JournalError, match=r"found ~no-such-user/state, and no such home; set DKIST_CORE_STATE_DIR"):
        open_bus(settings).open_journal()


def test_what_is_taken_over_keeps_its_time_and_its_refusals(tmp_path: Path) -> None:
    """
    The age of a message continues in another file, and the counts of both files are exact.
    """
    with Journal.open(tmp_path / "from.db") as source, Journal.open(tmp_path / "to.db") as target:
        source.append([to_message(started("A"), "x"), to_message(finished("A"), "x")])
        source.record_refusal(2, "no", max_tries=1)
        appended, (refused,) = source.oldest, source.set_aside()

        take_over(target, source, {"x": "y"})

        (kept,) = target.set_aside()
        assert target.oldest == appended
        assert (kept.refused, kept.reason, kept.message.exchange) == (refused.refused, "no", "y")
        assert (source.books(), target.books()) == (Books(0, 0, 0, 0), Books(2, 0, 1, 1))


def test_a_replay_from_a_time_passes_over_what_was_published_before(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    There is one clock on this host, and every row has its time of publishing.
    """
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        since = datetime.now(UTC)
        publisher.publish(finished("A"))

    with subscribe(replay=since, timeout=0.0, settings=settings) as events:
        assert list(events) == [finished("A")]


def test_the_removal_of_large_messages_does_not_write_their_bodies(tmp_path: Path) -> None:
    """
    The size of SQLite's log shows it: it contains some pages, and not those of the bodies.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append([Message("x", "a.b", b"b" * 16384, Properties(str(number), "t")) for number in range(200)])
        journal.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        journal.remove_confirmed(range(1, 201))
        written = path.with_name(f"{path.name}-wal").stat().st_size
        books = journal.books()

    assert books == Books(published=200, confirmed=200, pending=0, set_aside=0)
    assert 0 < written < 200 * 16384 // 4


def test_something_can_be_noted_without_a_message(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The note is known on this host from then on, and changes no count.
    """
    with Publisher.open(settings) as publisher:
        assert not publisher.remembers("a note")
        publisher.remember("a note")
    with Publisher.open(settings) as another, open_bus(settings).open_journal() as journal:
        assert (another.remembers("a note"), another.remembers("another")) == (True, False)
        assert journal.books().published == 0


def test_what_was_noted_long_ago_is_forgotten(
    settings: DKISTProcessingCoreConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A host that runs for years does not remember every task.
    """
    monkeypatch.setattr(_journal, "_REMEMBERED_SECONDS", -1.0)
    with open_bus(settings).open_journal(synced=False) as journal:
        for number in range(2000):
            journal.remember(f"id-{number}")

        assert len(journal.sent_once()) < 1500


def test_a_message_too_large_to_read_does_not_stop_a_named_subscription(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    With 900 MB of memory, its beginning and the reason go to the dead letters, and later messages are delivered.
    """
    subscribe(settings=settings, name="strict").close()
    with open_bus(settings).open_journal() as journal:
        message = too_large(settings.isb_event_exchange)
        journal.append([message, to_message(finished("A"), settings.isb_event_exchange)])

    assert finished("A") == next_with_little_memory(settings, "strict")

    with open_bus(settings).open_journal() as journal:
        ((reason, body),) = NamedSubscription(journal, "strict").dead_letters()
    assert reason == f"the body is too large: found {len(message.body):,} bytes, expected at most 1,048,576"
    assert body == message.body[: 16 * 1024]
