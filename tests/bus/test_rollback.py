"""
A rollback journal next to a journal's file, created by another user: SQLite would delete any file that it names.
"""

import contextlib
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal._format import MESSAGES
from dkist_processing_core.journal.damage import rename_if_damaged
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.spare import Spare, spares_of, take_over_spares
from tests.facts import started

MAGIC = bytes.fromhex("d9d505f920a163d7")
SECTOR = 512


def plant(path: Path, target: Path) -> None:
    """
    Create a rollback journal for a file, without pages and with the name of another file (fileformat2.html, 3).
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:], "big") or 4096
    head = MAGIC + struct.pack(">IIIII", 0, 0, path.stat().st_size // size, SECTOR, size)
    name = str(target).encode()
    end = struct.pack(">I", 0x40000000 // size + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    path.with_name(f"{path.name}-journal").write_bytes(head.ljust(SECTOR, b"\0") + end)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """
    A file of this user.
    """
    path = tmp_path / "key"
    path.write_text("canary")
    return path


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    The settings of a host without a broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_publisher_plays_back_no_rollback_journal(
    settings: DKISTProcessingCoreConfiguration, key: Path, mode: str
) -> None:
    """
    It is kept under another name, and the event is stored in the journal.
    """
    path = open_bus(settings).journal_path
    open_bus(settings).open_journal().close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    plant(path, key)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        is_kept = not publisher._shelf.is_displaced

    assert key.exists()
    assert is_kept
    assert len([*path.parent.glob("embedded.db-journal.damaged-*")]) == 1


def test_a_look_a_spare_and_a_damaged_file_play_back_no_rollback_journal(tmp_path: Path, key: Path) -> None:
    """
    Listing leaves it unchanged.
    """
    path = tmp_path / "outbox.db"
    with Journal.open(path):
        spare = Spare.open(path)
        spare.journal.append([to_message(started("A"), "x")])
        spare.close()
        plant(spares_of(path)[0], key)
        assert Journal.look(spares_of(path)[0], Journal.books).pending == 1
        with Journal.open(path) as journal:
            take_over_spares(journal)
            taken = journal.books().pending
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    plant(path, key)
    rename_if_damaged(path, destination="")

    assert (key.exists(), taken) == (True, 1)
    assert len([*tmp_path.glob("outbox.db.damaged-*Z")]) == 1


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_rollback_journal_that_is_put_there_while_a_file_is_opened_is_not_played_back(
    tmp_path: Path, key: Path, mode: str
) -> None:
    """
    It is placed before each statement of the first use, which fails or goes on.
    """
    path = tmp_path / "outbox.db"
    Journal.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")

    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:

        def plant_first(statement: str) -> None:
            del statement
            plant(path, key)

        connection.set_trace_callback(plant_first)
        with contextlib.suppress(sqlite3.OperationalError):
            MESSAGES.prepare(connection, path, "")
        connection.set_trace_callback(None)

    assert key.exists()
