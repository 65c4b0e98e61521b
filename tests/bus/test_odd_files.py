"""
Odd files next to a journal and odd rows in it: they delay no event and no task.

Not here: damage that SQLite recognizes (test_damage).
"""

import fcntl
import logging
import math
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.embedded import JournalBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.wait_limit import WAIT_LIMIT_SECONDS
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal._pages import rows_by_page
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.damage import _take_over
from dkist_processing_core.journal.faults import check_access
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.retention import keep
from dkist_processing_core.journal.spare import Spare, spares_of, take_over_spares
from dkist_processing_core.journal.subscription import NamedSubscription
from tests.facts import progressed, started
from tests.waiting import SECONDS


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    The settings of a host without a broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_with_the_name_of_a_damaged_journal_costs_no_event(
    settings: DKISTProcessingCoreConfiguration, link: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """
    The journal stores every event, a subscription reads them, and one warning names the link to remove.
    """
    path = open_bus(settings).journal_path
    open_bus(settings).open_journal().close()
    other = path.with_name("other")
    other.write_bytes(b"x" * 5000)
    odd = path.with_name("embedded.db.damaged-20260101T000000Z")
    link(other, odd)

    with subscribe(name="ops", timeout=0.0, settings=settings) as events:
        for number in range(2):
            with Publisher.open(settings) as publisher:
                publisher.publish(progressed("A", number))
                assert not publisher._shelf.is_displaced
        found = [event.id for event in events]

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert found == [progressed("A", 0).id, progressed("A", 1).id]
    assert len(warnings) == 1
    assert f"{odd}: found a" in warnings[0]


ODD_ROWS = {
    "a taken over page": "INSERT INTO fact VALUES ('damaged embedded.db.damaged-20260101T000000Z', 'x y')",
    "a page before the first": "INSERT INTO fact VALUES ('damaged embedded.db.damaged-20260101T000000Z', '-7 1')",
    "a place": "UPDATE subscription SET position = 'far'",
    "a time of use": "UPDATE subscription SET used = 'late'; DELETE FROM fact WHERE name = 'clock'",
    "the marks": "UPDATE fact SET value = '[[1e999, 1], 5]' WHERE name = 'marks'",
    "a large number": f"UPDATE fact SET value = '[[1{'0' * 400}, 1]]' WHERE name = 'marks'; "
    "DELETE FROM fact WHERE name = 'clock'",
}


@pytest.mark.parametrize("statements", ODD_ROWS.values(), ids=ODD_ROWS)
def test_a_row_of_a_wrong_type_keeps_no_task_from_its_journal(
    settings: DKISTProcessingCoreConfiguration, statements: str
) -> None:
    """
    A publisher and a named subscription go on, even if old events must be removed and a damaged file is in the folder.
    """
    path = open_bus(settings).journal_path
    with subscribe(name="ops", timeout=0.0, settings=settings), Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number) for number in range(3)])
    path.with_name("embedded.db.damaged-20260101T000000Z").write_bytes(b"x" * 9000)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"UPDATE fact SET value = 2 WHERE name = 'prune_to'; {statements}")

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        is_kept = not publisher._shelf.is_displaced
    with subscribe(name="ops", timeout=0.0, settings=settings) as events:
        found = [event.id for event in events]

    assert is_kept
    assert found[-1] == started("A").id


def test_a_loss_of_a_subscription_is_counted_though_what_it_wants_cannot_be_read(tmp_path: Path) -> None:
    """
    The name may have selected every event.
    """
    with Journal.open(tmp_path / "embedded.db") as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(3)])
        NamedSubscription(journal, "ops").position(0, "[")
        keep(journal, 60.0)
        journal.write("UPDATE fact SET value = 2 WHERE name = 'prune_to'")
        keep(journal, 60.0, limit=0)

        assert (journal.first(), NamedSubscription(journal, "ops").missed) == (3, 2)


def test_a_damaged_journal_that_another_process_has_taken_over_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """
    Events delivered since then are not repeated.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append([to_message(progressed("A", number), "x") for number in range(3)])
    path.rename(tmp_path / "outbox.db.damaged-20260101T000000Z")
    with Journal.open(path) as journal:
        take_over_spares(journal)
        journal.remove_confirmed([entry.seq for entry in journal.pending(0, 10)])
        before = journal.books()

        _take_over(journal, damaged_of(path)[0], None, math.inf)

        assert (before.confirmed, journal.books()) == (3, before)


class _FaultyBus(JournalBus):
    """A bus whose journal cannot be opened, because of an error of this package."""

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        del synced, patience
        msg = "a fault, with https://user:opensesame@example.invalid/"
        raise TypeError(msg)


def test_an_error_of_this_package_at_the_journal_costs_no_event(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Published events are kept on disk in a spare file, and the error is logged once, without secrets.
    """
    bus = _FaultyBus(settings)
    with Publisher(bus) as publisher:
        publisher.publish(started("A"))
        publisher.publish(progressed("A", 1))

    with open_bus(settings).open_journal() as journal:
        kept = [entry.message.properties.message_id for entry in journal.read(0, 10)]
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert kept == [started("A").id, progressed("A", 1).id]
    assert len(errors) == 1
    assert "TypeError: a fault" in errors[0]
    assert "opensesame" not in caplog.text


def _leave_spares(path: Path, count: int) -> None:
    for number in range(count):
        spare = Spare.open(path)
        spare.journal.append([to_message(progressed("A", number), "x")])
        spare.close()


def _adopt(path: Path, barrier: Barrier) -> None:
    with Journal.open(path) as journal:
        barrier.wait(SECONDS)
        take_over_spares(journal)


def test_processes_that_take_over_spare_journals_at_once_leave_no_lock_behind(tmp_path: Path) -> None:
    """
    The messages of each spare file are moved once.
    """
    path, context = tmp_path / "outbox.db", multiprocessing.get_context("fork")
    Journal.open(path).close()
    _leave_spares(path, 40)
    barrier = context.Barrier(4)
    processes = [context.Process(target=_adopt, args=(path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)

    with Journal.open(path) as journal:
        take_over_spares(journal)
        count = len(journal.pending(0, 100))

    assert (count, spares_of(path)) == (40, [])
    assert list(tmp_path.glob("*.lock")) == []


def test_a_lock_that_another_user_holds_on_the_folder_delays_no_task(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    Every user who may read the folder can hold it: events soon go to a spare file.
    """
    path = open_bus(settings).journal_path
    open_bus(settings).open_journal().close()
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        waited, is_kept = publisher.waited, publisher._shelf._overflow._spare is not None
        os.close(descriptor)

    with open_bus(settings).open_journal() as journal:
        found = [entry.message.properties.message_id for entry in journal.read(0, 10)]
    assert is_kept
    assert waited < WAIT_LIMIT_SECONDS / 4
    assert found == [started("A").id]


def test_a_file_that_vanishes_during_the_check_of_access_is_as_good_as_none(tmp_path: Path) -> None:
    """
    SQLite removes the side files of a journal at any time.
    """
    path = tmp_path / "embedded.db"
    path.touch()
    process = multiprocessing.get_context("fork").Process(target=_toggle, args=(path.with_name("embedded.db-wal"),))
    process.start()
    try:
        for _ in range(5000):
            check_access(path)
    finally:
        process.terminate()
        process.join(SECONDS)

    assert path.exists()


def _toggle(path: Path) -> None:
    while True:
        path.touch()
        path.unlink()


def test_a_damaged_file_whose_rows_all_claim_one_page_is_read_at_once(tmp_path: Path) -> None:
    """
    A page that refers to itself would be read as often as the lengths of the rows require.
    """
    size, length, local = 4096, 60 * 1024 * 1024, 489 + (60 * 1024 * 1024 - 489) % 4092
    local = local if local <= size - 35 else 489
    leaf = bytearray(size)
    cell = bytes([0x80 | length >> 21, 0x80 | length >> 14 & 0x7F, 0x80 | length >> 7 & 0x7F, length & 0x7F, 1])
    leaf[:8] = b"\x0d\0\0\x03\xe8\0\0\0"
    leaf[8:2008] = (2100).to_bytes(2, "big") * 1000
    leaf[2100:2105] = cell
    leaf[2105 + local : 2109 + local] = b"\0\0\0\x02"
    head = (b"SQLite format 3\0" + size.to_bytes(2, "big")).ljust(size, b"\0")
    path = tmp_path / "outbox.db.damaged-20260101T000000Z"
    path.write_bytes(head + b"\0\0\0\x02".ljust(size, b"\0") + leaf)

    began = time.process_time()
    with Journal.connect(path) as journal:
        assert [rows for _, rows in rows_by_page(journal.bytes_at, path) if rows] == []
    assert time.process_time() - began < 0.5


def test_a_look_at_a_journal_beside_a_log_that_is_none_changes_nothing(tmp_path: Path) -> None:
    """
    It reads the journal's own rows, and creates no file.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path) as journal:
        journal.append([to_message(started("A"), "x")])
    path.with_name("outbox.db-wal").write_bytes(b"\x5a" * 5000)
    before = {*tmp_path.iterdir()}

    assert Journal.look(path, Journal.books).pending == 1
    assert {*tmp_path.iterdir()} == before
