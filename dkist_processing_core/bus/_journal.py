"""
The journal: messages in an SQLite file that several processes append to, read and remove from.

The same format holds the embedded bus (rows stay, until they are old) and an outbox (rows go when the broker has
confirmed them). Not here: anything about brokers, events or threads; a `Journal` belongs to one thread at a time.
"""

import contextlib
import fcntl
import functools
import os
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dkist_processing_core.bus._message import Message, Properties
from dkist_processing_core.bus._place import file_mode
from dkist_processing_core.errors import JournalError, JournalVersionError

APPLICATION_ID = 0x444B4A4E
FORMAT_VERSION = 1
_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    appended REAL NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    set_aside TEXT
);
CREATE INDEX pending ON message (seq) WHERE set_aside IS NULL;
CREATE TABLE sent_once (message_id TEXT PRIMARY KEY, appended REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE subscription (name TEXT PRIMARY KEY, position INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letter (subscription TEXT NOT NULL, seq INTEGER NOT NULL, dead REAL NOT NULL, reason TEXT NOT NULL,
    message_id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (subscription, seq)) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO fact VALUES ('confirmed', 0), ('unreachable_until', 0), ('destination', '');
"""
_COLUMNS = "seq, exchange, routing_key, body, properties"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message at its place in the journal."""

    seq: int
    message: Message


@dataclass(frozen=True, slots=True)
class Books:
    """What became of every message that was ever appended: published = confirmed + pending + set aside."""

    published: int
    confirmed: int
    pending: int
    set_aside: int


class Journal:
    """An open journal file. Every failure is a `JournalError` that names it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take an open connection; `Journal.open` makes one."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, synced: bool = True, destination: str = "") -> Self:
        """
        Open the journal at `path`, made if it is missing.

        With `synced` a commit is on disk when it returns (SQLite's synchronous FULL, in WAL mode an fsync per
        commit). Without, it survives the process but perhaps not the machine: enough to remove what was confirmed,
        since what comes back is only delivered twice.

        Raises
        ------
        JournalVersionError
            for a file that a newer release wrote; it is not touched.

        """
        with _explained(path):
            # Made by hand, so that the mode does not depend on the umask; SQLite gives its side files the same.
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                os.fchmod(descriptor, file_mode(path.parent))
                os.close(descriptor)
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                cls._prepare(connection, path, destination)
                connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            except BaseException:
                connection.close()
                raise
            return cls(path, connection)

    @staticmethod
    def _prepare(connection: sqlite3.Connection, path: Path, destination: str) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been first.
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute("UPDATE fact SET value = ? WHERE name = 'destination'", (destination,))
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                version = FORMAT_VERSION
            connection.execute("COMMIT")
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            msg = f"{path} is an SQLite file of something else, not a journal"
            raise JournalError(msg)
        if version > FORMAT_VERSION:
            msg = f"{path} was written by a newer release (format {version}, this one reads up to {FORMAT_VERSION})"
            raise JournalVersionError(msg)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def append(self, messages: Iterable[Message], *, once: bool = False) -> list[int]:
        """
        Append messages in one synced transaction and return their sequence numbers.

        With `once`, a message whose id this journal was ever given before is left out.
        """
        now = time.time()
        appended = []
        with self._transaction() as connection:
            for message in messages:
                if once:
                    row = (message.properties.message_id, now)
                    if not connection.execute("INSERT OR IGNORE INTO sent_once VALUES (?, ?)", row).rowcount:
                        continue
                cursor = connection.execute(
                    "INSERT INTO message (appended, exchange, routing_key, properties, body) VALUES (?, ?, ?, ?, ?)",
                    (now, message.exchange, message.routing_key, message.properties.to_json(), message.body),
                )
                appended.append(int(cursor.lastrowid or 0))
        return appended

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` messages behind the place `after`, in order."""
        return self._entries(
            f"SELECT {_COLUMNS} FROM message WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 - a constant
            after,
            limit,
        )

    def pending(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` messages behind the place `after` that are neither confirmed nor set aside."""
        return self._entries(
            f"SELECT {_COLUMNS} FROM message WHERE seq > ? AND set_aside IS NULL ORDER BY seq LIMIT ?",  # noqa: S608
            after,
            limit,
        )

    def _entries(self, query: str, *values: int) -> list[Entry]:
        with _explained(self.path):
            rows = self._connection.execute(query, values).fetchall()
        return [
            Entry(seq, Message(exchange, key, bytes(body), Properties.from_json(properties)))
            for seq, exchange, key, body, properties in rows
        ]

    def holds(self, first: int, last: int) -> bool:
        """Say whether any message from `first` to `last` is still pending."""
        with _explained(self.path):
            row = self._connection.execute(
                "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? AND set_aside IS NULL LIMIT 1", (first, last)
            ).fetchone()
        return row is not None

    def remove_confirmed(self, seqs: Sequence[int]) -> None:
        """Remove what the broker has confirmed."""
        with self._transaction() as connection:
            removed = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
            connection.execute("UPDATE fact SET value = value + ? WHERE name = 'confirmed'", (removed,))

    def note_refusal(self, seq: int, reason: str, *, max_tries: int) -> bool:
        """Count a refusal of one message; the last of `max_tries` sets it aside. Return whether it was."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE message SET tries = tries + 1, set_aside = CASE WHEN tries + 1 >= ? THEN ? END WHERE seq = ?",
                (max_tries, reason, seq),
            )
            row = connection.execute("SELECT set_aside FROM message WHERE seq = ?", (seq,)).fetchone()
        return row is not None and row[0] is not None

    def books(self) -> Books:
        """Return the books, all of one instant."""
        with _explained(self.path):
            row = self._connection.execute(
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0),"
                " (SELECT value FROM fact WHERE name = 'confirmed'),"
                " (SELECT count(*) FROM message WHERE set_aside IS NULL),"
                " (SELECT count(*) FROM message WHERE set_aside IS NOT NULL)"
            ).fetchone()
        return Books(*row)

    def last(self) -> int:
        """Return the place behind the newest message."""
        with _explained(self.path):
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
        return int(row[0]) if row else 0

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        with _explained(self.path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    @property
    def unreachable_until(self) -> float:
        """Until when (seconds since 1970) trying the broker again would only cost time."""
        with _explained(self.path):
            row = self._connection.execute("SELECT value FROM fact WHERE name = 'unreachable_until'").fetchone()
        return float(row[0])

    @unreachable_until.setter
    def unreachable_until(self, moment: float) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE fact SET value = ? WHERE name = 'unreachable_until'", (moment,))

    def position(self, subscription: str, default: int) -> int:
        """Return the place up to which a subscription is done, noting `default` as the place of a new one."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO subscription VALUES (?, ?, ?)", (subscription, default, time.time())
            )
            row = connection.execute("SELECT position FROM subscription WHERE name = ?", (subscription,)).fetchone()
        return int(row[0])

    def advance(self, subscription: str, position: int) -> None:
        """Note that a subscription is done up to `position`."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE subscription SET position = max(position, ?), used = ? WHERE name = ?",
                (position, time.time(), subscription),
            )

    def bury(self, subscription: str, entry: Entry, reason: str) -> None:
        """Keep a message that a subscription cannot use, with the reason."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?)",
                (
                    subscription,
                    entry.seq,
                    time.time(),
                    reason,
                    entry.message.properties.message_id,
                    entry.message.body,
                ),
            )

    def dead_letters(self, subscription: str) -> list[tuple[str, bytes]]:
        """Return the reason and the body of each message that a subscription could not use."""
        with _explained(self.path):
            return self._connection.execute(
                "SELECT reason, body FROM dead_letter WHERE subscription = ? ORDER BY seq", (subscription,)
            ).fetchall()

    def prune(self, older_than: float) -> None:
        """Remove messages and memories that are older than a time in seconds since 1970."""
        with _explained(self.path):
            row = self._connection.execute("SELECT appended FROM message ORDER BY seq LIMIT 1").fetchone()
        if row is None or row[0] >= older_than:
            return
        with self._transaction() as connection:
            connection.execute("DELETE FROM message WHERE appended < ?", (older_than,))
            connection.execute("DELETE FROM sent_once WHERE appended < ?", (older_than,))
            connection.execute("DELETE FROM dead_letter WHERE dead < ?", (older_than,))
            connection.execute("DELETE FROM subscription WHERE used < ?", (older_than,))


class FileLock:
    """A kernel lock on a file beside a journal, which ends with the process that holds it, however that ends."""

    def __init__(self, path: Path) -> None:
        """Name the lock's file; nothing is opened yet."""
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it, and say whether it is held now."""
        if self._descriptor is not None:
            return True
        with _explained(self.path):
            descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, file_mode(self.path.parent))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        _watch_forks()
        _held.add(self)
        return True

    def release(self) -> None:
        """Let another take it."""
        if self._descriptor is not None:
            # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.abandon()

    def abandon(self) -> None:
        """Forget the lock without unlocking it: what a fork does with its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _abandon_all() -> None:
    for lock in list(_held):
        lock.abandon()


@functools.cache
def _watch_forks() -> None:
    """Have forks close their copies of the locks: a lock goes with its last descriptor, and a child may live longer."""
    os.register_at_fork(after_in_child=_abandon_all)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        msg = f"the journal {path} cannot be used: {error}"
        raise JournalError(msg) from error
