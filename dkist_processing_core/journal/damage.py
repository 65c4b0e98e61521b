"""
The recovery of a damaged journal: it is renamed, and a new journal takes over the messages that can be read.

A file that is only in use, or belongs to a newer release or to another user, is never changed. Not here: the
detection of damage (faults), and the opening of journals (opening).
"""

import contextlib
import logging
import math
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.journal._connections import Connections
from dkist_processing_core.journal._file import BUSY_SECONDS, JournalFile
from dkist_processing_core.journal._file_format import FileFormat
from dkist_processing_core.journal._format import MESSAGES
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._pages import Row, rows_by_page
from dkist_processing_core.journal._rollback import without_rollback
from dkist_processing_core.journal._rows import Entry
from dkist_processing_core.journal._successor import OldFile, begin
from dkist_processing_core.journal.aside import damaged_of, name_aside
from dkist_processing_core.journal.faults import SIDE_FILES, explained, is_of_damage, not_a_file, suspects
from dkist_processing_core.journal.locks import FileLock, folder_lock, in_use
from dkist_processing_core.journal.takeover import COLUMNS, take_over_rows

_BATCH = 500
_CHECK_SECONDS = 1.0
_STEPS_BETWEEN_LOOKS = 1000
# A gap of unreadable rows up to this size is skipped row by row, a larger one in growing steps.
_SMALL_GAP = 1000
_DONE = -1
# Damaged files about which this process has logged a warning.
_refused: set[Path] = set()
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged file that was renamed."""

    path: Path
    taken_over: int
    """How many of its messages the new journal has taken over."""
    is_done: bool
    """Whether all messages that can be read were taken over."""


def rename_if_damaged(
    path: Path, *, destination: str | None, patience: float = BUSY_SECONDS, file_format: FileFormat = MESSAGES
) -> None:
    """
    Rename a damaged journal, and create a new one in its place unless `destination` is None.

    Raises:
        JournalError: Another process writes to the journal, or the folder may not be changed.
    """
    is_met = path in suspects
    with contextlib.ExitStack() as stack:
        # This runs last: the steps below find the damage of the old file again, and the new file has none.
        stack.callback(suspects.discard, path)
        stack.enter_context(explained(path))
        stack.enter_context(folder_lock(path.parent, exclusive=True, seconds=patience))
        _move_folders(path)
        held = Connections.without_log(path)
        old = stack.enter_context(_kept_from_writers(path, held, patience))
        if (
            held is None
            and (old is not None and old.connection.in_transaction)
            and not _is_damaged(path, file_format, is_met=is_met)
        ):
            return
        aside = name_aside(path)
        beginning = path.with_name(f"{path.name}.new")
        _remove(beginning)
        if destination is not None:
            begin(beginning, path, old, destination)
            if held is not None:
                _copy(held, beginning, path, aside)
        for side in (*SIDE_FILES, ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + side).rename(aside.with_name(aside.name + side))
        if destination is not None:
            beginning.rename(path)
    if held is not None:
        logger.warning(
            "the log of the journal %s was removed while it was in use. All published messages are in a new file; "
            "the old one is kept as %s. Remove it when you no longer need it.",
            path,
            aside,
        )
        return
    logger.warning(
        "the journal %s is damaged. It is kept as %s; %s, and a new file was created. "
        "Check the disk; remove the damaged file when you no longer need it.",
        path,
        aside,
        file_format.after_damage,
    )


def _move_folders(path: Path) -> None:
    """Rename folders at the paths of side files: the journal itself may be undamaged."""
    for side in SIDE_FILES:
        each = path.with_name(path.name + side)
        if each.is_dir():
            aside = name_aside(each)
            each.rename(aside)
            logger.warning("%s is a folder at the path of a journal's file. It is kept as %s.", each, aside)


@contextlib.contextmanager
def _kept_from_writers(path: Path, held: sqlite3.Connection | None, patience: float) -> Iterator[OldFile | None]:
    """
    Hold the write lock of a file, so that no other process commits to it; yield None if there is no file.

    If this process already has a connection to the file (`held`), that connection is used.
    """
    if not path.is_file():
        yield None
        return
    with in_use, JournalFile.connect(path, patience=patience) as journal:
        old = OldFile(journal.connection if held is None else held, journal.bytes_at)
        with contextlib.suppress(JournalDamagedError):
            if held is None:
                journal.use_first(lambda connection: _lock_for_writing(connection, path))
            else:
                with explained(path):
                    held.execute("BEGIN IMMEDIATE")
        try:
            yield old
        finally:
            with contextlib.suppress(sqlite3.Error):
                old.connection.execute("ROLLBACK")


def _lock_for_writing(connection: sqlite3.Connection, path: Path) -> None:
    with without_rollback(path):
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("BEGIN IMMEDIATE")


def _is_damaged(path: Path, file_format: FileFormat, *, is_met: bool, seconds: float = _CHECK_SECONDS) -> bool:
    """
    Return True if a file is not a usable journal, or if a check of at most `seconds` seconds finds damage.

    If the check does not finish in time, return `is_met`: whether SQLite has found damage in the file before.
    """
    if not_a_file(path):
        return True
    until = time.monotonic() + seconds
    with in_use, JournalFile.connect(path) as journal:
        connection = journal.connection
        try:
            file_format.checked_version(connection, path)
            for table, columns in file_format.columns.items():
                connection.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608 - constants
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
        except JournalError as error:
            return isinstance(error, JournalDamagedError)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_INTERRUPT:
                return is_met
            if not is_of_damage(error):
                raise
            return True


def _copy(held: sqlite3.Connection, beginning: Path, path: Path, aside: Path) -> None:
    """Copy all messages that an open connection reads into the new journal."""
    count, log = 0, path.with_name(f"{path.name}-wal")
    # Another process may have begun a new log since, with its own messages. They are taken over as from a damaged file.
    done = 0 if log.is_file() and log.stat().st_size else _DONE
    with Journal.open(beginning, is_replaceable=False) as new:
        found = held.execute(f"SELECT seq, {COLUMNS} FROM message ORDER BY seq")  # noqa: S608 - a constant
        while rows := found.fetchmany(_BATCH):
            count += len(rows)
            take_over_rows(new, rows, (_name(aside), f"{done} {count}"), keeps_numbers=True)


def _remove(path: Path) -> None:
    for side in (*SIDE_FILES, ""):
        path.with_name(path.name + side).unlink(missing_ok=True)


def damaged(journal: Journal) -> list[Damaged]:
    """Return the damaged files that were renamed from a journal's name, and how far each was taken over."""
    return [
        Damaged(path, count, at == _DONE) for path in damaged_of(journal.path) for at, count in [_state(journal, path)]
    ]


def _state(journal: Journal, path: Path) -> tuple[int, int]:
    """Return the last page of a damaged file that was taken over, and the number of rows taken over."""
    found = re.fullmatch(r"(-1|\d{1,12}) (\d{1,12})", str(journal.value_of(_name(path))))
    # If this value cannot be read, the take-over starts again: rows that are already there are left out.
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _name(path: Path) -> str:
    return f"damaged {path.name}"


def take_over_renamed(journal: Journal, *, seconds: float = math.inf) -> bool:
    """
    Take over the readable messages of the renamed damaged files, page by page, for about `seconds` seconds.

    Return False if another process is doing this, otherwise True.
    """
    until = time.monotonic() + seconds
    waiting = [path for path in damaged_of(journal.path) if _state(journal, path)[0] != _DONE]
    if not waiting:
        return True
    lock = FileLock(journal.path.with_suffix(".damaged.lock"))
    if not lock.acquire():
        return False
    try:
        for path in waiting:
            try:
                old = JournalFile.connect(path) if path.is_file() else None
            except JournalError as error:
                # A file that may not be read, such as a link, does not delay the others.
                if path not in _refused:
                    _refused.add(path)
                    logger.warning("the messages of a damaged journal are not taken over: %s", error)
                continue
            with old or contextlib.nullcontext():
                _take_over(journal, path, old, until)
    finally:
        lock.remove()
    return True


def _take_over(journal: Journal, path: Path, old: JournalFile | None, until: float) -> None:
    page, count = _state(journal, path)
    if page == _DONE:
        # Another process has finished it before this one had the lock.
        return
    keeps_numbers = path.name.startswith(f"{journal.path.name}.")
    rows: list[Row] = []
    pages = () if old is None else rows_by_page(old.bytes_at, path, page + 1)
    for page, found in pages:
        rows += found
        # The rows of a spare journal get new numbers, so all of them must be read and sorted first.
        if keeps_numbers and (len(rows) >= _BATCH or time.monotonic() > until):
            count += len(rows)
            take_over_rows(journal, rows, (_name(path), f"{page} {count}"), keeps_numbers=True)
            rows = []
            if time.monotonic() > until:
                return
    count += len(rows)
    take_over_rows(journal, sorted(rows), (_name(path), f"{_DONE} {count}"), keeps_numbers=keeps_numbers)


def read_around(journal: Journal, after: int) -> tuple[list[Entry], int]:
    """Return the next readable message of a damaged journal after number `after`, and the position before it."""
    step, last = 0, journal.last()
    while after + step < last:
        try:
            return journal.read(after + step, 1), after + step
        except JournalDamagedError:
            step = step + 1 if step < _SMALL_GAP else 2 * step
    return [], last
