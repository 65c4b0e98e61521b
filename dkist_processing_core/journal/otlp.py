"""
The journal of telemetry: serialized OTLP requests that wait for a collector, within bounds of size, age and disk.

Several processes append to it. Events come first: this file never takes the last tenth of a disk, and its oldest
content is dropped, and counted, when a bound is reached. It is long because each append keeps the bounds and the books
in its transaction. Not here: the encoding (tracing), and the delivery (otlp).
"""

import contextlib
import functools
import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._file_format import FileFormat
from dkist_processing_core.journal._formatted_file import FormattedFile
from dkist_processing_core.journal._rows import number
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.faults import suspects

PAGE_SIZE = 8192
# The numbers of chunks are never used again: a process that delivers a chunk removes it by its number afterwards. With
# the index, an outage of the collector of one signal does not slow down the reads of another signal.
_SCHEMA = """
CREATE TABLE chunk (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    appended REAL NOT NULL,
    signal TEXT NOT NULL,
    items INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX by_signal ON chunk (signal);
CREATE TABLE book (
    signal TEXT PRIMARY KEY,
    pending INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO book (signal) VALUES ('traces'), ('metrics'), ('logs');
INSERT INTO fact VALUES ('destination', '');
"""
FORMAT = FileFormat(
    application_id=0x444B4F54,
    version=1,
    columns={
        "chunk": "seq, appended, signal, items, body",
        "book": "signal, pending, delivered, refused, dropped",
        "fact": "name, value",
    },
    # Removed content returns to the disk in steps (`_return_pages`), since the file may grow in a long outage.
    settings=(f"PRAGMA page_size = {PAGE_SIZE}", "PRAGMA auto_vacuum = INCREMENTAL"),
    creation=_SCHEMA.split(";\n"),
    after_damage="its telemetry is not delivered",
)
MOST_BYTES = 512 * 1024**2
"""The bound of the size: how many bytes the content of one journal has at most."""
MOST_SECONDS = 7 * 24 * 3600.0
"""The bound of the age: after how many seconds telemetry is dropped."""
FREE_SHARE = 0.1
"""The share of the disk that this journal leaves free."""
LONGEST_REQUESTED_SECONDS = 3600.0
"""The longest pause that a collector may request. A longer one is probably an error."""
# A bound is kept by dropping so much at once that the next appends need not drop anything.
_STEP_SHARE = 1 / 64
_MOST_DROPPED_AT_ONCE = 1000
# So many free pages stay in the file, since they are soon used again.
_KEPT_PAGES = 1024
_RETURNED_PAGES = 256
# With less content than this, too little can be dropped for the telemetry of a task.
_ROOM_BYTES = 1024**2


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One serialized `Export…ServiceRequest`, as a process appended it."""

    seq: int
    appended: float
    """Time of the append, in seconds since 1970."""
    signal: str
    items: int
    """How many spans, log records or metric points it contains."""
    body: bytes


class OtlpBooks(msgspec.Struct, frozen=True, gc=False):
    """The counts of all spans, log records or metric points that were ever appended, by state."""

    pending: int
    delivered: int
    refused: int
    """How many the collector refused."""
    dropped: int
    """How many were dropped since a bound was reached, or the journal could not be written to."""


class OtlpJournal(FormattedFile):
    """An open journal of telemetry; it belongs to one thread at a time."""

    format = FORMAT
    most_bytes = MOST_BYTES
    most_seconds = MOST_SECONDS
    free_share = FREE_SHARE
    clock: Callable[[], float] = staticmethod(time.time)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        destination: str,
        patience: float = BUSY_SECONDS,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        free_share: float = FREE_SHARE,
    ) -> Self:
        """
        Open the journal at `path`, created if missing; a damaged file is renamed first.

        A commit survives the end of its process, and perhaps not a crash of the machine.

        Args:
            path: See `otlp_path`.
            destination: The collectors, without credentials, for an operator.
            patience: How many seconds each call waits while another process holds the file.
            most_bytes: The bound of the size of the content.
            most_seconds: The bound of the age.
            free_share: The share of the disk that stays free.

        Raises:
            JournalVersionError: A newer release wrote the file; it is not changed.
            JournalError: The file is not such a journal, or cannot be used; it is not changed either.
        """
        if path in suspects:
            _rename_damaged(path, patience)
        try:
            journal = cls._open(path, synced=False, destination=destination, patience=patience)
        except JournalDamagedError:
            _rename_damaged(path, patience)
            journal = cls._open(path, synced=False, destination=destination, patience=patience)
        journal.most_bytes, journal.most_seconds, journal.free_share = most_bytes, most_seconds, free_share
        return journal

    def check_room(self) -> None:
        """
        Check that the next chunks are kept.

        Raises:
            JournalError: The disk has too little free space, and there is nothing to drop that would make room.
        """
        if self.size < _ROOM_BYTES and not self._leaves_disk(_ROOM_BYTES):
            msg = f"the disk of {self.path} has less than {self.free_share:.0%} of free space, which is left to events"
            raise JournalError(msg)

    def append(self, signal: str, items: int, body: bytes, *, dropped: Mapping[str, int] | None = None) -> None:
        """
        Append one serialized request; drop the oldest chunks as far as a bound requires it.

        Args:
            signal: The signal.
            items: How many items the request has.
            body: The request.
            dropped: How many items of each signal the process has dropped before, which are counted now.
        """

        def insert(connection: sqlite3.Connection) -> None:
            if not self.is_there:
                # As in the journal of events: a damaged file is only replaced while no process writes to it.
                msg = f"the journal {self.path} was removed"
                raise JournalError(msg)
            now = self.clock()
            self._drop_old(connection, now)
            if self._makes_room(connection, len(body)):
                row = (now, signal, items, body)
                connection.execute("INSERT INTO chunk (appended, signal, items, body) VALUES (?, ?, ?, ?)", row)
                _count(connection, signal, pending=items)
            else:
                _count(connection, signal, dropped=items)
            for each, count in (dropped or {}).items():
                _count(connection, each, dropped=count)

        self.transact(insert)

    @property
    def version(self) -> int:
        """A number that changes when another process has changed the file."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def _drop_old(self, connection: sqlite3.Connection, now: float) -> None:
        (first,) = connection.execute("SELECT min(appended) FROM (SELECT appended FROM chunk ORDER BY seq LIMIT 1)")
        if first[0] is not None and first[0] < now - self.most_seconds:
            rows = connection.execute(
                "SELECT seq, appended, signal, items FROM chunk ORDER BY seq LIMIT ?", (_MOST_DROPPED_AT_ONCE,)
            ).fetchall()
            # Not beyond the first one that is not old: where the clock was set back, later ones may be old too.
            old = itertools.takewhile(lambda row: row[1] < now - self.most_seconds, rows)
            _drop(connection, [(seq, signal, items) for seq, _, signal, items in old])

    def _makes_room(self, connection: sqlite3.Connection, size: int) -> bool:
        """Drop the oldest chunks until `size` more bytes are within the bounds; return False if they never are."""
        # A chunk shares no page with another one, and the tables may need a few more.
        needed = size + 4 * PAGE_SIZE
        if needed > self.most_bytes:
            return False
        while True:
            used, free = _bytes_of(connection)
            excess = used + needed - self.most_bytes
            if free < needed and not self._leaves_disk(needed):
                # The chunk must fit into pages that the file has already.
                excess = max(excess, needed - free)
            if excess <= 0:
                return True
            if not _drop_oldest(connection, max(excess, int(self.most_bytes * _STEP_SHARE))):
                return False

    def _leaves_disk(self, size: int) -> bool:
        """Return True if a file that grows by `size` bytes leaves the share of the disk that must stay free."""
        with contextlib.suppress(OSError):
            disk = os.statvfs(self.path.parent)
            return disk.f_bavail * disk.f_frsize - size >= self.free_share * disk.f_blocks * disk.f_frsize
        return True

    def pending(self, signal: str, *, most_bytes: int, most_items: int, after: int = 0) -> list[Chunk]:
        """
        Return the oldest chunks of a signal after number `after`, within these limits; at least one if there is any.

        What is beyond the bound of the age is dropped first, and counted: perhaps nothing was appended for long.

        Args:
            signal: `traces`, `metrics` or `logs`.
            most_bytes: The limit on the length of all bodies together.
            most_items: The limit on the items of all chunks together.
            after: The number of the last chunk that is left out.
        """
        while (oldest := self.oldest) is not None and oldest < (now := self.clock()) - self.most_seconds:
            self.transact(functools.partial(self._drop_old, now=now))
        sizes = self.rows(
            "SELECT seq, items, length(body) FROM chunk WHERE signal = ? AND seq > ? ORDER BY seq LIMIT ?",
            signal,
            after,
            max(1, min(most_items, _MOST_DROPPED_AT_ONCE)),
        )
        last, size, count = 0, 0, 0
        for seq, items, length in sizes:
            size, count = size + length, count + max(0, int(number(items) or 0))
            if last and (size > most_bytes or count > most_items):
                break
            last = seq
        rows = self.rows(
            "SELECT seq, appended, items, body FROM chunk WHERE signal = ? AND seq > ? AND seq <= ? ORDER BY seq",
            signal,
            after,
            last,
        )
        return [
            Chunk(seq, number(appended) or 0.0, signal, int(number(items) or 0), body)
            for seq, appended, items, body in rows
        ]

    def remove(self, chunks: Iterable[Chunk], *, delivered: int, refused: int) -> None:
        """
        Remove chunks that the collector has answered: of their items it accepted `delivered` and refused `refused`.

        Items of a chunk that is no longer there, since a bound was reached in the meantime, are counted already.
        """
        chunks = list(chunks)
        if delivered + refused != sum(chunk.items for chunk in chunks):
            msg = (
                f"found {delivered} delivered and {refused} refused items, expected {sum(c.items for c in chunks)} "
                "together; count each item of the chunks once"
            )
            raise ValueError(msg)

        def change(connection: sqlite3.Connection) -> None:
            left = refused
            for chunk in chunks:
                if connection.execute("DELETE FROM chunk WHERE seq = ?", (chunk.seq,)).rowcount:
                    of_these = min(left, chunk.items)
                    left -= of_these
                    _count(
                        connection,
                        chunk.signal,
                        pending=-chunk.items,
                        delivered=chunk.items - of_these,
                        refused=of_these,
                    )
            for signal in {chunk.signal for chunk in chunks}:
                # A collector that answers has ended its pause, also if the clock is set back later.
                connection.execute("DELETE FROM fact WHERE name = ?", (_pause_of(signal),))

        self.transact(change)
        self._return_pages()

    def pause(self, signal: str, seconds: float) -> None:
        """Store that the collector of a signal requests no request for so many seconds, from any process."""
        self.write("INSERT OR REPLACE INTO fact VALUES (?, ?)", _pause_of(signal), self.clock() + seconds)

    def pause_left(self, signal: str) -> float:
        """Return how many seconds are left of the pause that the collector of a signal has requested; 0.0 if none."""
        left = (number(self.value_of(_pause_of(signal))) or 0.0) - self.clock()
        # No pause is as long: the clock was set back.
        return left if 0.0 < left <= LONGEST_REQUESTED_SECONDS else 0.0

    def _return_pages(self) -> None:
        """Give pages that are no longer used back to the disk, a few at once: the file may be large after an outage."""
        if int(self.rows("PRAGMA freelist_count")[0][0]) > _KEPT_PAGES + _RETURNED_PAGES:
            # A plain `execute` would only take the first step, since the statement has no columns.
            self._patiently(lambda: self._connection.executescript(f"PRAGMA incremental_vacuum({_RETURNED_PAGES})"))

    def books(self) -> dict[str, OtlpBooks]:
        """Return the books by signal; the cost does not grow with the number of chunks."""
        rows = self.rows("SELECT signal, pending, delivered, refused, dropped FROM book")
        return {signal: OtlpBooks(*(int(number(count) or 0) for count in counts)) for signal, *counts in rows}

    @property
    def size(self) -> int:
        """How many bytes the content has; the file may be larger, since it keeps free pages for the next appends."""
        with_free, free, page_size = (
            int(self.rows(f"PRAGMA {name}")[0][0]) for name in ("page_count", "freelist_count", "page_size")
        )
        return (with_free - free) * page_size

    @property
    def oldest(self) -> float | None:
        """Time when the oldest pending chunk was appended, in seconds since 1970; None if no chunk is pending."""
        rows = self.rows("SELECT appended FROM chunk ORDER BY seq LIMIT 1")
        return (number(rows[0][0]) or 0.0) if rows else None


def _pause_of(signal: str) -> str:
    """Return the name of the fact that holds the time until which a collector requests no request."""
    return f"{signal} paused until"


def _bytes_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many bytes the content of a file has, and how many are free for more."""
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    return (pages - free) * PAGE_SIZE, free * PAGE_SIZE


def _drop_oldest(connection: sqlite3.Connection, size: int) -> bool:
    """Drop the oldest chunks, of about `size` bytes together; return False if there is none."""
    rows = connection.execute(
        "SELECT seq, signal, items, length(body) FROM chunk ORDER BY seq LIMIT ?", (_MOST_DROPPED_AT_ONCE,)
    ).fetchall()
    dropped = 0
    while dropped < len(rows) and size > 0:
        size -= rows[dropped][3]
        dropped += 1
    _drop(connection, [row[:3] for row in rows[:dropped]])
    return bool(rows)


def _drop(connection: sqlite3.Connection, rows: Sequence[tuple[int, str, int]]) -> None:
    if rows:
        connection.execute("DELETE FROM chunk WHERE seq <= ?", (rows[-1][0],))
    for _, signal, items in rows:
        _count(connection, signal, pending=-items, dropped=items)


def _count(connection: sqlite3.Connection, signal: str, **changes: int) -> None:
    """Change counts in the book of a signal, by column."""
    changed = ", ".join(f"{column} = {column} + ?" for column in changes)
    connection.execute(f"UPDATE book SET {changed} WHERE signal = ?", (*changes.values(), signal))  # noqa: S608 - columns


def _rename_damaged(path: Path, patience: float) -> None:
    """Rename a damaged file, and keep no older one: a damaged journal of telemetry may be large, and is not read."""
    from dkist_processing_core.journal import damage  # noqa: PLC0415 - as in opening

    damage.rename_if_damaged(path, destination=None, patience=patience, file_format=FORMAT)
    for older in damaged_of(path)[:-1]:
        with contextlib.suppress(OSError):
            older.unlink()


def otlp_path(folder: Path, destination: str) -> Path:
    """
    Return the path of the journal for some collectors, in the folder of the journals.

    `destination` has protocol and endpoint of each signal, without credentials: other collectors have another journal.
    """
    return folder / f"otlp-{hashlib.sha256(destination.encode()).hexdigest()[:8]}.db"
