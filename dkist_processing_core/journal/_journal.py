"""
The journal: an SQLite file of messages. Several processes append to it, read it and remove rows from it.

The embedded bus (rows stay until they are old) and an outbox (a row is removed when the broker has confirmed it) use
the same format. Not here: anything about brokers, events or threads; a `Journal` belongs to one thread at a time.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Self, cast

from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._format import MESSAGES, add_index, remove_index
from dkist_processing_core.journal._formatted_file import FormattedFile
from dkist_processing_core.journal._rows import (
    COLUMNS,
    EXCERPT_COLUMNS,
    Books,
    Entry,
    SetAside,
    number,
    to_entries,
    to_entry,
    to_runs,
    to_set_aside,
)
from dkist_processing_core.journal.message import Message
from dkist_processing_core.process.own_random import own_random

_BATCH = 1000
_INSERT = "INSERT INTO message (appended, exchange, routing_key, properties, body) VALUES (?, ?, ?, ?, ?)"
_REMEMBERED_SECONDS = 31 * 24 * 3600.0
_SHARE_OF_FORGETTING = 0.01


class Journal(FormattedFile):
    """An open journal: a file with the tables of this release's format."""

    format = MESSAGES
    clock: Callable[[], float] = staticmethod(time.time)
    """Returns the time by the file's clock, in seconds; by this process's clock until the file's is known."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        synced: bool = True,
        destination: str = "",
        patience: float = BUSY_SECONDS,
        is_replaceable: bool = True,
    ) -> Self:
        """
        Open the journal at `path`, created if missing; the arguments are those of `FormattedFile`.

        It need not be `synced` for removing confirmed messages: a removal that is lost only causes a second delivery.

        Raises:
            JournalVersionError: A newer release wrote the file; it is not changed.
        """
        return cls._open(path, synced=synced, destination=destination, patience=patience, is_replaceable=is_replaceable)

    def append(self, messages: Iterable[Message], *, once: bool = False, note: str | None = None) -> list[int]:
        """
        Append messages in one synced transaction and return their sequence numbers.

        With `once`, a message is left out if this journal has ever received its id before. A `note` is stored in the
        same transaction.
        """
        now = time.time()
        rows = [
            (
                message.properties.message_id,
                (now, message.exchange, message.routing_key, message.properties.to_json(), message.body),
            )
            for message in messages
        ]

        def insert(connection: sqlite3.Connection) -> list[int]:
            if not self.is_there:
                # The check is inside the transaction: a damaged file is only replaced while no process writes to it.
                msg = f"the journal {self.path} was removed"
                raise JournalError(msg)
            if note is not None:
                is_first(connection, note, now)
            taken = [row for message_id, row in rows if not once or is_first(connection, message_id, now)]
            return [cast("int", connection.execute(_INSERT, row).lastrowid) for row in taken]

        return self.transact(insert)

    def remember(self, message_id: str) -> None:
        """Store an id without a message; ids that were stored more than a month ago are deleted occasionally."""

        def record(connection: sqlite3.Connection) -> None:
            now = time.time()
            is_first(connection, message_id, now)
            if own_random.random() < _SHARE_OF_FORGETTING:
                # Delete a limited number from a random place, so that the time does not grow with the number of ids.
                connection.execute(
                    "DELETE FROM sent_once WHERE appended < ? AND message_id IN"
                    " (SELECT message_id FROM sent_once WHERE message_id >= ? ORDER BY message_id LIMIT ?)",
                    (now - _REMEMBERED_SECONDS, secrets.token_hex(4), _BATCH),
                )

        self.transact(record)

    def remembers(self, message_id: str) -> bool:
        """Return True if an id was stored, by `remember` or with a message that is sent once."""
        return bool(self.rows("SELECT 1 FROM sent_once WHERE message_id = ?", message_id))

    def sent_once(self) -> AbstractSet[str]:
        """Return the ids of the messages that are stored at most once in this journal."""
        return {message_id for (message_id,) in self.rows("SELECT message_id FROM sent_once")}

    def read(self, after: int, limit: int) -> list[Entry]:
        """
        Return up to `limit` messages after number `after`, in order; with an excerpt of a body that is too large.

        A message whose properties cannot be read has empty ones: what reads it decides what is lost without them.
        """
        query = f"SELECT {EXCERPT_COLUMNS} FROM message WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - a constant
        rows = self.rows(query, after, limit)
        if any(row[0] <= before for before, row in zip([after, *(row[0] for row in rows)], rows, strict=False)):
            # Further reading could return to earlier rows, and never end.
            msg = f"the journal {self.path} cannot be used: its rows are out of order"
            raise JournalDamagedError(msg)
        return [to_entry(row) for row in rows]

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """
        Return up to `limit` messages after number `after` that are neither confirmed nor set aside.

        Messages for the exchanges in `without` are skipped.
        """
        marks = ",".join("?" * len(without))
        query = (
            f"SELECT {COLUMNS} FROM message WHERE seq > ? AND set_aside IS NULL AND exchange NOT IN ({marks})"  # noqa: S608 - marks
            " ORDER BY seq LIMIT ?"
        )
        while True:
            entries, unreadable = to_entries(self.rows(query, after, *without, limit))
            if not unreadable:
                return entries
            for seq, reason in unreadable:
                # A user has edited the row, or the disk has damaged it. The other messages are delivered.
                self.record_refusal(seq, f"it cannot be read in the journal: {reason}", max_tries=1)

    def set_aside(self) -> list[SetAside]:
        """Return the messages that are set aside, in order; with an excerpt of a body that is too large."""
        rows = self.rows(
            f"SELECT {EXCERPT_COLUMNS}, appended, refused, tries, set_aside FROM message"  # noqa: S608 - a constant
            " WHERE set_aside IS NOT NULL ORDER BY seq"
        )
        return [to_set_aside(row) for row in rows]

    def retry(self, seqs: Iterable[int] | None = None) -> int:
        """Make messages that were set aside (all if `seqs` is None) pending again, with no tries; return how many."""
        query = "UPDATE message SET set_aside = NULL, tries = 0 WHERE set_aside IS NOT NULL"
        query, rows = (query, [()]) if seqs is None else (f"{query} AND seq = ?", [(seq,) for seq in seqs])

        def change(connection: sqlite3.Connection) -> int:
            changed = connection.executemany(query, rows).rowcount
            remove_index(connection)
            return changed

        return self.transact(change)

    def continues(self, file: tuple[int, int] | None) -> bool:
        """Return True if this file replaced the damaged `file` (device, inode) and continues its row numbers."""
        return file is not None and self.value_of("continues") == "{}:{}".format(*file)

    def holds(self, first: int, last: int) -> bool:
        """Return True if any message from `first` to `last` is still pending."""
        query = "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? AND set_aside IS NULL LIMIT 1"
        return bool(self.rows(query, first, last))

    def remove_confirmed(self, seqs: Collection[int]) -> None:
        """Remove the messages that the broker has confirmed."""
        # Most of them are consecutive. Removing a range takes less time than removing its rows one by one.
        ranges = [(run[0], run[-1]) for run in to_runs(sorted(seqs))]

        def remove(connection: sqlite3.Connection) -> None:
            removed = connection.executemany("DELETE FROM message WHERE seq BETWEEN ? AND ?", ranges).rowcount
            connection.execute("UPDATE fact SET value = value + ? WHERE name = 'confirmed'", (removed,))

        self.transact(remove)

    def record_refusal(self, seq: int, reason: str, *, max_tries: int) -> bool:
        """Count a refusal of one message; set it aside after `max_tries`. Return True if it is set aside."""

        def record(connection: sqlite3.Connection) -> bool:
            connection.execute(
                "UPDATE message SET tries = tries + 1, refused = ?,"
                " set_aside = CASE WHEN tries + 1 >= ? THEN ? END WHERE seq = ?",
                (time.time(), max_tries, reason, seq),
            )
            row = connection.execute("SELECT set_aside FROM message WHERE seq = ?", (seq,)).fetchone()
            is_set_aside = row is not None and row[0] is not None
            if is_set_aside:
                add_index(connection)
            return is_set_aside

        return self.transact(record)

    def books(self) -> Books:
        """Return the books, all counts of one instant; the cost does not grow with the number of messages."""
        (row,) = self.rows(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0)"
            " - coalesce((SELECT value FROM fact WHERE name = 'taken_over'), 0),"
            " (SELECT value FROM fact WHERE name = 'confirmed'),"
            " (SELECT value FROM fact WHERE name = 'set_aside'),"
            " (SELECT value FROM fact WHERE name = 'pruned')"
        )
        published, confirmed, set_aside, pruned = (int(number(value) or 0) for value in row)
        return Books(published, confirmed, published - confirmed - set_aside - pruned, set_aside)

    def first(self) -> int | None:
        """Return the number of the oldest message; None if there is none."""
        (found,) = self.rows("SELECT min(seq) FROM message")[0]
        return None if found is None else int(found)

    def last(self) -> int:
        """Return the number of the message that was appended last; 0 if none was ever appended."""
        rows = self.rows("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        return int(number(rows[0][0]) or 0) if rows else 0

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        return int(self.rows("PRAGMA data_version")[0][0])

    @property
    def oldest(self) -> float | None:
        """Time when the oldest pending message was appended, in seconds since 1970; None if no message is pending."""
        rows = self.rows("SELECT appended FROM message WHERE set_aside IS NULL ORDER BY seq LIMIT 1")
        return (number(rows[0][0]) or 0.0) if rows else None

    @property
    def unreachable_until(self) -> float:
        """The time (seconds since 1970) before which no process tries to reach the broker again."""
        return number(self.value_of("unreachable_until")) or 0.0

    @unreachable_until.setter
    def unreachable_until(self, moment: float) -> None:
        self.write("UPDATE fact SET value = ? WHERE name = 'unreachable_until'", moment)


def is_first(connection: sqlite3.Connection, message_id: str, now: float) -> bool:
    """Store an id, and return True if this journal has never received it before."""
    row = (message_id, now)
    return connection.execute("INSERT OR IGNORE INTO sent_once VALUES (?, ?)", row).rowcount > 0
