"""
A journal that is damaged: it is set aside, its readable messages are kept, and publishers and subscribers go on.
"""

import fcntl
import logging
import multiprocessing
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal._format import FORMER_PAGE_SIZE, MESSAGES, PAGE_SIZE
from dkist_processing_core.journal._pages import last_number, rows_by_page
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.damage import _is_damaged, damaged
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.message import Message, Properties, to_message
from dkist_processing_core.journal.opening import recover_file
from dkist_processing_core.journal.spare import Spare, take_over_spares
from dkist_processing_core.journal.subscription import NamedSubscription
from dkist_processing_core.process.descriptors import _lowest_high
from tests.facts import finished, progressed, started
from tests.waiting import SECONDS

COUNT = 400
PAGE = PAGE_SIZE
# An event takes more than 400 bytes.
ROWS_OF_A_PAGE = PAGE // 400


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    The settings of a host without a broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


def cut_in_half(path: Path) -> None:
    """
    Remove the second half of a file.
    """
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, page: int, at: int = 0) -> None:
    """
    Change the first byte of a page, which defines the kind of the page.
    """
    with path.open("r+b") as file:
        file.seek(page * PAGE + at)
        found = file.read(1)
        file.seek(page * PAGE + at)
        file.write(bytes([found[0] ^ 0xFF]))


def flip_in_the_middle(path: Path) -> None:
    """
    Damage one page of rows.
    """
    flip(path, path.stat().st_size // PAGE // 2)


def flip_the_last(path: Path) -> None:
    """
    Damage the page into which the next row would be written.
    """
    flip(path, path.stat().st_size // PAGE - 1)


def damage_the_head(path: Path) -> None:
    """
    Damage the list of tables, so that SQLite reads nothing.
    """
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 14)


def fill_with_garbage(path: Path) -> None:
    """
    Replace the content of a file by garbage.
    """
    path.write_bytes(b"this is no database, however long it may be" * 1000)


def replace_by_a_folder(path: Path) -> None:
    """
    Replace a file by a folder.
    """
    path.unlink()
    path.mkdir()


def fill(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Publish events, and return their ids in order.
    """
    events = [progressed("A", number) for number in range(COUNT)]
    with Publisher.open(settings) as publisher:
        publisher.publish(*events)
    return [event.id for event in events]


def ids(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Return the ids of the journal's messages, in order, as read by a process that encounters the damage.
    """
    while True:
        with open_bus(settings).open_journal() as journal, suppress(JournalDamagedError):
            return [entry.message.properties.message_id for entry in journal.read(0, 10 * COUNT)]


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (cut_in_half, COUNT // 3),
        (flip_in_the_middle, COUNT - ROWS_OF_A_PAGE),
        (flip_the_last, COUNT - ROWS_OF_A_PAGE),
        (fill_with_garbage, 0),
        (replace_by_a_folder, 0),
    ],
)
def test_what_can_be_read_of_a_damaged_journal_is_kept_and_the_next_event_follows(
    settings: DKISTProcessingCoreConfiguration,
    damage: Callable[[Path], None],
    least: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    One warning names the damaged file, which is kept under another name; no spare file remains.
    """
    before, path = fill(settings), open_bus(settings).journal_path
    damage(path)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        is_kept = not publisher._shelf.is_displaced

    found = ids(settings)
    (aside,) = damaged_of(path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (is_kept, found[-1]) == (True, started("A").id)
    assert len(found) - 1 >= least
    assert found[:-1] == [each for each in before if each in set(found)]
    assert len(warnings) == 1
    assert f"It is kept as {aside}" in warnings[0]
    assert not list(path.parent.glob("*.lock"))


def test_damage_that_is_met_only_when_an_event_is_published_is_mended_at_once(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    An open publisher puts the event that encountered the damage into the new file.
    """
    before, path = fill(settings), open_bus(settings).journal_path

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        # The checkpoint removes the page from the log.
        assert publisher._shelf.journal is not None
        publisher._shelf.journal.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        publisher._shelf.journal._connection.execute("PRAGMA cache_size = 0")
        flip_the_last(path)
        publisher.publish(finished("A"))
        is_kept = not publisher._shelf.is_displaced

    found = ids(settings)
    assert (is_kept, found[-1]) == (True, finished("A").id)
    assert len(set(before) & set(found)) >= COUNT - ROWS_OF_A_PAGE


def test_a_named_subscription_goes_on_where_it_was_in_the_damaged_journal(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    The new file continues the numbers of the old one, and has its positions.
    """
    path = open_bus(settings).journal_path
    with subscribe(name="ops", timeout=0.0, settings=settings) as events:
        before = fill(settings)
        for event in events:
            if event.id == before[9]:
                break
        event.ack()
    flip_in_the_middle(path)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))

    with subscribe(name="ops", timeout=0.0, settings=settings) as events:
        found = [each.id for each in events]

    assert found[0] == before[10]
    assert found[-1] == started("A").id
    assert len(found) >= COUNT - 20


def test_an_open_subscription_goes_on_in_the_file_that_replaces_a_damaged_one(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    With or without a name, it misses no event that is published afterwards.
    """
    fill(settings)
    path = open_bus(settings).journal_path
    with (
        subscribe(name="ops", timeout=SECONDS, settings=settings) as named,
        subscribe(timeout=SECONDS, settings=settings) as unnamed,
    ):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        fill_with_garbage(path)
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"))

        assert next(unnamed).id == started("A").id
        assert next(named).id == started("A").id


def test_an_open_publisher_goes_on_in_the_file_that_replaces_a_damaged_one(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    This holds if another process has encountered the damage.
    """
    fill(settings)
    with Publisher.open(settings) as publisher:
        flip_in_the_middle(open_bus(settings).journal_path)
        ids(settings)
        publisher.publish(started("A"))
        is_kept = not publisher._shelf.is_displaced

    assert (is_kept, ids(settings)[-1]) == (True, started("A").id)


def _publish(settings: DKISTProcessingCoreConfiguration, number: int) -> None:
    with Publisher.open(settings) as publisher:
        publisher.publish(progressed("B", number))


@pytest.mark.parametrize("removed", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_a_log_that_is_removed_while_it_is_in_use_costs_no_event(
    settings: DKISTProcessingCoreConfiguration, removed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """
    All published events are in a new file, in order and once, and subscriptions go on in it.
    """
    path = open_bus(settings).journal_path
    with Publisher.open(settings) as publisher, subscribe(name="ops", timeout=0.0, settings=settings) as named:
        publisher.publish(*[progressed("A", number) for number in range(3)])
        first = next(named)
        first.ack()
        for side in removed:
            path.with_name(f"{path.name}{side}").unlink()
        publisher.publish(finished("A"))
        published = [progressed("A", number).id for number in range(3)] + [finished("A").id]

        with multiprocessing.get_context("spawn").Pool(1) as another:
            assert another.apply(ids, [settings]) == published
        assert [first.id, *[event.id for event in named]] == published
    assert ids(settings) == published
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told.startswith(f"the log of the journal {path} was removed while it was in use.")


def test_a_name_whose_place_cannot_be_read_begins_with_the_oldest_event(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Some events are delivered again, with one warning, and none is lost; after that the name has its position.
    """
    path = open_bus(settings).journal_path
    with subscribe(name="ops", timeout=0.0, settings=settings):
        pass
    before = fill(settings)
    with path.open("r+b") as file:
        file.write(bytes(100))
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))

    found = []
    for _ in range(2):
        with subscribe(name="ops", timeout=0.0, settings=settings) as events:
            found.append([each.id for each in events])
            assert events.missed == 0

    assert set(found[0]) >= {*before[10:], started("A").id}
    assert found[1] == []
    told = [record.getMessage() for record in caplog.records if "position of" in record.getMessage()]
    (only,) = told
    assert only == (
        f"the position of the subscription 'ops' is not known, because the journal {path} was damaged: "
        "it begins with the oldest event, and may yield events again"
    )


def test_what_a_damaged_journal_knows_of_ages_and_losses_goes_on(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The new file keeps the ages and losses that can be read.
    """
    fill(settings)
    bus = open_bus(settings)
    names = ("clock", "marks", "prune_to", "wanted ops", "missed ops")
    with bus.open_journal() as journal:
        NamedSubscription(journal, "ops").position(7, "[null, []]")
        journal.write("INSERT INTO fact VALUES ('missed ops', 5)")
        before = [journal.value_of(name) for name in names]
    flip_in_the_middle(bus.journal_path)

    recover_file(bus.journal_path, destination="embedded")

    assert Journal.look(bus.journal_path, lambda journal: [journal.value_of(name) for name in names]) == before
    assert None not in before


def test_a_damaged_journal_is_read_backwards_as_far_as_it_is_readable(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    The newest events come first, and all that a replay yields are read.
    """
    fill(settings)
    bus = open_bus(settings)
    flip_in_the_middle(bus.journal_path)

    newest, *rest = bus.read_back(("#",))
    replay = list(subscribe(replay=True, timeout=0.0, settings=settings))

    read = [message.properties.message_id for batch in (*reversed(rest), newest) for message in batch]
    assert read == [event.id for event in replay]
    assert newest[-1].properties.message_id == progressed("A", COUNT - 1).id


def test_a_replay_reports_that_a_damaged_journal_is_still_being_taken_over(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It is reported once, and not after the move.
    """
    fill(settings)
    bus = open_bus(settings)
    flip_in_the_middle(bus.journal_path)
    recover_file(bus.journal_path, destination="embedded")
    (aside,) = damaged_of(bus.journal_path)

    few = list(subscribe(replay=True, timeout=0.0, settings=settings))
    told = [record.getMessage() for record in caplog.records if "may not yield all" in record.getMessage()]
    bus.open_journal().close()
    many = list(subscribe(replay=True, timeout=0.0, settings=settings))

    assert len(few) < len(many)
    assert [f"the damaged journal {aside} are still being taken over" in each for each in told] == [True]
    assert sum("may not yield all" in record.getMessage() for record in caplog.records) == 1


def test_a_new_journal_that_gets_the_number_of_a_removed_one_is_read_from_its_beginning(
    settings: DKISTProcessingCoreConfiguration, tmp_path: Path
) -> None:
    """
    The kernel reuses a free number.
    """
    path = open_bus(settings).journal_path
    with Journal.open(tmp_path / "other.db", destination="embedded") as other:
        other.append([to_message(progressed("B", number), settings.isb_event_exchange) for number in range(5)])
    with Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number) for number in range(3)])
    with subscribe(timeout=0.0, settings=settings) as events:
        assert list(events) == []
        # The new content is in the same file, which keeps its number.
        path.write_bytes((tmp_path / "other.db").read_bytes())

        assert [each.id for each in events] == [progressed("B", number).id for number in range(5)]


def test_one_of_several_processes_sets_a_damaged_journal_aside(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The events of all processes are in the one new file, which has every row of the old one once.
    """
    before, path = fill(settings), open_bus(settings).journal_path
    flip_in_the_middle(path)
    context = multiprocessing.get_context("spawn")
    with open_bus(settings).open_journal() as journal, suppress(JournalDamagedError):
        journal.read(0, COUNT)
    writers = [context.Process(target=_publish, args=(settings, number)) for number in range(4)]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(SECONDS)

    found = ids(settings)
    assert len(damaged_of(path)) == 1
    assert len(found) == len(set(found))
    assert {progressed("B", number).id for number in range(4)} <= set(found)
    assert len(set(before) & set(found)) >= COUNT - ROWS_OF_A_PAGE


def test_an_outbox_keeps_exact_books_over_its_damage(tmp_path: Path) -> None:
    """
    Messages that were moved count as published in the new file, and unreadable messages do not.
    """
    settings = DKISTProcessingCoreConfiguration(
        dkist_core_state_dir=tmp_path / "state",
        mesh_config='{"interservice-bus": {"mesh_address": "broker.invalid", "mesh_port": 5672}}',
    )
    bus = open_bus(settings)
    with bus.open_journal() as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(COUNT)])
        journal.record_refusal(3, "no", max_tries=1)
    flip_in_the_middle(bus.journal_path)

    with bus.open_journal() as journal, suppress(JournalDamagedError):
        journal.read(0, COUNT)

    with bus.open_journal() as journal:
        journal.append([to_message(started("A"), "x")])
        take_over_spares(journal)
        books, (state,) = journal.books(), damaged(journal)

    assert state.is_done
    assert books.published == state.taken_over + 1 == books.pending + books.set_aside
    assert (books.confirmed, books.set_aside) == (0, 1)


def test_a_damaged_spare_journal_is_taken_over_as_far_as_it_can_be_read(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    The spare file does not remain permanently.
    """
    bus = open_bus(settings)
    bus.open_journal().close()
    spare = Spare.open(bus.journal_path)
    spare.journal.append([to_message(progressed("A", number), "x") for number in range(COUNT)])
    spare.close()
    flip_in_the_middle(spare.journal.path)

    found = ids(settings)

    assert COUNT > len(found) >= COUNT - ROWS_OF_A_PAGE
    assert not spare.journal.path.exists()
    assert len(damaged_of(bus.journal_path)) == 1


@pytest.mark.parametrize(("at", "found"), [(47, 9), (61, 0xA0)], ids=["schema format", "version"])
def test_a_head_that_looks_like_a_format_to_come_is_damage(
    settings: DKISTProcessingCoreConfiguration, at: int, found: int
) -> None:
    """
    No format has such a number: the file is set aside, and events go into a new one.
    """
    before, path = fill(settings), open_bus(settings).journal_path
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([found]))

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        is_kept = not publisher._shelf.is_displaced

    assert (is_kept, ids(settings)) == (True, [*before, started("A").id])
    assert len(damaged_of(path)) == 1


def test_a_check_that_is_cut_off_does_not_make_a_journal_a_damaged_one(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    In that case the file counts as damaged only if SQLite has encountered damage in it.
    """
    fill(settings)
    path = open_bus(settings).journal_path

    assert not _is_damaged(path, MESSAGES, is_met=True)
    assert not _is_damaged(path, MESSAGES, is_met=False, seconds=0.0)
    assert _is_damaged(path, MESSAGES, is_met=True, seconds=0.0)


def test_a_busy_a_newer_and_a_foreign_file_are_never_set_aside(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Only damaged files are: other users or programs use these files.
    """
    fill(settings)
    path = open_bus(settings).journal_path
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with Publisher.open(settings, wait_limit=0.1) as publisher:
            publisher.publish(started("A"))
        connection.execute("ROLLBACK")
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer release"):
        open_bus(settings).open_journal()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("message", "sent_once", "subscription", "dead_letter", "fact"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA application_id = 1")
    with pytest.raises(JournalError, match="something else"):
        open_bus(settings).open_journal()

    assert damaged_of(path) == []


@pytest.mark.parametrize("side", ["-wal", "-shm"])
def test_a_folder_in_the_place_of_a_side_file_costs_no_event(
    settings: DKISTProcessingCoreConfiguration, side: str
) -> None:
    """
    The complete journal is moved to a new file.
    """
    before, path = fill(settings), open_bus(settings).journal_path
    path.with_name(path.name + side).mkdir()

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))

    assert ids(settings) == [*before, started("A").id]


def test_a_folder_in_the_place_of_a_lock_keeps_no_process_from_its_work(tmp_path: Path) -> None:
    """
    It is set aside, and the lock is taken.
    """
    (tmp_path / "outbox.lock").mkdir()
    lock = FileLock(tmp_path / "outbox.lock")

    assert lock.acquire()
    lock.release()
    assert len(list(tmp_path.glob("outbox.lock.damaged-*"))) == 1


def test_a_look_at_a_damaged_journal_changes_nothing(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    It raises a specific error.
    """
    fill(settings)
    path = open_bus(settings).journal_path
    cut_in_half(path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}

    with pytest.raises(JournalDamagedError, match=r"embedded\.db cannot be used"):
        Journal.look(path, Journal.books)

    assert before == {each.name: each.read_bytes() for each in path.parent.iterdir()}


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000000)"
FOREIGN = {
    "view": "ALTER TABLE message RENAME TO message_; CREATE VIEW message AS "
    f"{ENDLESS} SELECT x AS seq, 0.0 AS appended, 'e' AS exchange, 'k' AS routing_key, '{{}}' AS properties,"
    " x'00' AS body, 0 AS tries, NULL AS set_aside, NULL AS refused FROM n WHERE x < 0",
    "trigger": "CREATE TRIGGER slow AFTER INSERT ON message BEGIN INSERT INTO fact "
    "SELECT hex(randomblob(9)), seq FROM message; END",
    "facts": f"ALTER TABLE fact RENAME TO fact_; CREATE VIEW fact AS {ENDLESS} SELECT 'x' AS name, x AS value FROM n",
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
def test_a_table_that_another_program_has_exchanged_for_a_view_delays_no_process(
    settings: DKISTProcessingCoreConfiguration, statements: str
) -> None:
    """
    The file is set aside like a damaged one, and no event is lost; listing reports the cause.
    """
    path = open_bus(settings).journal_path
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)

    with pytest.raises(JournalDamagedError, match="which no release makes"):
        Journal.look(path, Journal.books)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("B"))
    with open_bus(settings).open_journal() as journal:
        found = {entry.message.properties.message_id for entry in journal.read(0, 10)}

    assert found == {started("A").id, started("B").id}


def test_a_look_at_rows_without_end_ends(tmp_path: Path) -> None:
    """
    It ends with an error that names the file.
    """
    path = tmp_path / "outbox.db"
    Journal.open(path).close()

    def endless(journal: Journal) -> None:
        journal.patience = 0.02
        journal.rows(f"{ENDLESS} SELECT x FROM n WHERE x < 0")

    with pytest.raises(JournalError, match=r"outbox\.db cannot be used: interrupted"):
        Journal.look(path, endless)


def locks_of(path: Path) -> int:
    """
    Return how many locks this process has on a file (proc_locks(5)).
    """
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    process, file = str(os.getpid()), f":{path.stat().st_ino}"
    return sum(line[1] == "POSIX" and line[4] == process and line[5].endswith(file) for line in lines)


def test_reading_a_damaged_file_keeps_the_locks_of_who_has_it_open(tmp_path: Path) -> None:
    """
    Without them another process would remove the log of an open journal.
    """
    path, aside = tmp_path / "outbox.db", tmp_path / "outbox.db.damaged-20260101T000000Z"
    with Journal.open(path) as old:
        old.append([to_message(progressed("A", number), "x") for number in range(COUNT)])
        path.rename(aside)
        path.with_name("outbox.db-wal").rename(aside.with_name(f"{aside.name}-wal"))
        before = locks_of(aside)
        with Journal.open(path) as journal:
            take_over_spares(journal)
            count = journal.books().pending

        assert (count, locks_of(aside)) == (COUNT, before)
        assert before > 0


def _note_numbers(path: Path, settings: DKISTProcessingCoreConfiguration, found: Connection) -> None:
    numbers: list[int] = []
    file = path.stat().st_ino

    def note(event: str, _: object) -> None:
        if event == "sqlite3.connect/handle":
            for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers
                with suppress(OSError):
                    is_path = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_PATH
                    numbers.extend([number] if os.fstat(number).st_ino == file and not is_path else [])

    sys.addaudithook(note)
    with open_bus(settings).open_journal() as journal, suppress(JournalDamagedError):
        journal.read(0, COUNT)
    with open_bus(settings).open_journal() as journal:
        found.send((numbers, journal.last()))


def test_a_damaged_file_is_read_by_high_numbers_alone(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    An author's code that closes low numbers gets no bytes of it into the author's files.
    """
    fill(settings)
    path = open_bus(settings).journal_path
    flip_in_the_middle(path)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_note_numbers, args=(path, settings, there))
    process.start()
    numbers, last = here.recv()
    process.join(SECONDS)

    assert last == COUNT
    assert len(numbers) > 2
    assert min(numbers) >= _lowest_high()


def test_the_numbers_of_a_journal_with_a_damaged_head_are_found_without_its_messages(tmp_path: Path) -> None:
    """
    Several pages are read at once, and the pages of each message are not read one by one.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append([Message("x", "a.b", b"b" * 9000, Properties(str(number), "t")) for number in range(300)])
    damage_the_head(path)
    reads: list[int] = []

    def read(size: int, at: int) -> bytes:
        reads.append(size)
        with path.open("rb") as file:
            file.seek(at)
            return file.read(size)

    assert last_number(read, path) == 300
    assert len(reads) < 20


@pytest.mark.parametrize("size", [FORMER_PAGE_SIZE, PAGE_SIZE])
def test_rows_are_found_in_a_file_whose_head_does_not_give_its_page_size(tmp_path: Path, size: int) -> None:
    """
    Files of earlier releases have smaller pages, and a body may be larger than a page of either size.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append(
            [Message("x", "a.b", b"b" * (20000 if n % 10 == 0 else 300), Properties(str(n), "t")) for n in range(300)]
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA page_size = {size}")
        connection.execute("VACUUM")
    content = path.read_bytes()
    path.write_bytes(content[:16] + b"\0\0" + content[18:])

    found = [row for _, rows in rows_by_page(lambda size, at: path.read_bytes()[at : at + size], path) for row in rows]
    assert int.from_bytes(content[16:18], "big") == size
    assert sorted((row[0], len(row[5])) for row in found) == [
        (n + 1, 20000 if n % 10 == 0 else 300) for n in range(300)
    ]


def test_a_large_damaged_journal_is_taken_over_in_turns(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Each call takes about the allowed time, and returns whether more is left.
    """
    before, path = fill(settings), open_bus(settings).journal_path
    damage_the_head(path)
    recover_file(path, destination="embedded")

    with Journal.open(path) as journal:
        turns = 1
        while not take_over_spares(journal, seconds=0.0) and not damaged(journal)[0].is_done:
            turns += 1
        found = [entry.message.properties.message_id for entry in journal.read(0, 10 * COUNT)]

    assert found == before
    assert turns > 5
