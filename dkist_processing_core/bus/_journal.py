"""
The journal: messages in an SQLite file that several processes append to, read and remove from.

The same format holds the embedded bus (rows stay, until they are old) and an outbox (rows go when the broker has
confirmed them). Not here: anything about brokers, events or threads; a `Journal` belongs to one thread at a time.
"""

import contextlib
import fcntl
import functools
import math
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from dkist_processing_core.bus._message import Message, Properties
from dkist_processing_core.bus._place import file_mode
from dkist_processing_core.errors import JournalError, JournalVersionError

APPLICATION_ID = 0x444B4A4E
FORMAT_VERSION = 1
_BUSY_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 0.025
_RENEWAL_SECONDS = 3600.0
_Result = TypeVar("_Result")
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
        self.patience = _BUSY_SECONDS
        """For how many seconds each call waits where another process holds the file."""
        self.waited = 0.0
        """For how many seconds all calls together have waited so."""
        self._renewed: dict[str, float] = {}

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
        _watch_forks()
        with _explained(path), _in_use:
            # Made by hand, so that the mode does not depend on the umask; SQLite gives its side files the same.
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                os.fchmod(descriptor, file_mode(path.parent))
                os.close(descriptor)
            # Without SQLite's own waiting: it would hold up forks, and does not cover the change to WAL.
            connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        journal = cls(path, connection)
        try:
            journal._patiently(lambda: journal._prepare(destination))
            journal._patiently(lambda: connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}"))
        except BaseException:
            journal.close()
            raise
        return journal

    def _prepare(self, destination: str) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN")
            version = self._checked_version()
            connection.execute("COMMIT")
            if version == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have been first.
                if self._checked_version() == 0:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute("UPDATE fact SET value = ? WHERE name = 'destination'", (destination,))
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _checked_version(self) -> int:
        """Return the format's version, 0 for a file that holds nothing yet; refuse what is not ours to write to."""
        application, version = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        is_empty = not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and not (is_empty and application == version == 0):
            msg = f"{self.path} is an SQLite file of something else, not a journal"
            raise JournalError(msg)
        if version > FORMAT_VERSION:
            msg = (
                f"{self.path} was written by a newer release (format {version}, this one reads up to {FORMAT_VERSION})"
            )
            raise JournalVersionError(msg)
        return int(version)

    def close(self) -> None:
        """Close the file."""
        with _in_use:
            self._connection.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Do something with the connection, again while another process holds the file, as long as patience lasts."""
        began = time.monotonic()
        pause = 0.001
        with _explained(self.path):
            while True:
                try:
                    with _in_use:
                        return action()
                except sqlite3.OperationalError as error:
                    remaining = began + self.patience - time.monotonic()
                    if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                        raise
                    if remaining <= 0:
                        raise
                pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
                nap = min(remaining, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                time.sleep(nap)
                self.waited += nap

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._patiently(lambda: self._connection.execute(query, values).fetchall())

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        _in_use.acquire()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._patiently(self._begin)
        try:
            with _explained(self.path):
                yield self._connection
                self._connection.execute("COMMIT")
        finally:
            # Also after a commit that failed, as it does on a full disk. Some errors have rolled back by themselves.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            _in_use.release()

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
        return [
            Entry(seq, Message(exchange, key, bytes(body), Properties.from_json(properties)))
            for seq, exchange, key, body, properties in self._rows(query, *values)
        ]

    def holds(self, first: int, last: int) -> bool:
        """Say whether any message from `first` to `last` is still pending."""
        query = "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? AND set_aside IS NULL LIMIT 1"
        return bool(self._rows(query, first, last))

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
        (row,) = self._rows(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0),"
            " (SELECT value FROM fact WHERE name = 'confirmed'),"
            " (SELECT count(*) FROM message WHERE set_aside IS NULL),"
            " (SELECT count(*) FROM message WHERE set_aside IS NOT NULL)"
        )
        return Books(*row)

    def last(self) -> int:
        """Return the place behind the newest message."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        return int(rows[0][0]) if rows else 0

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        return int(self._rows("PRAGMA data_version")[0][0])

    @property
    def unreachable_until(self) -> float:
        """Until when (seconds since 1970) trying the broker again would only cost time."""
        return float(self._rows("SELECT value FROM fact WHERE name = 'unreachable_until'")[0][0])

    @unreachable_until.setter
    def unreachable_until(self, moment: float) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE fact SET value = ? WHERE name = 'unreachable_until'", (moment,))

    def position(self, subscription: str, default: int) -> int:
        """Return the place up to which a subscription is done, noting `default` as the place of a new one."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET used = excluded.used",
                (subscription, default, time.time()),
            )
            row = connection.execute("SELECT position FROM subscription WHERE name = ?", (subscription,)).fetchone()
        return int(row[0])

    def advance(self, subscription: str, position: int) -> None:
        """Note that a subscription is done up to `position`."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
                " SET position = max(position, excluded.position), used = excluded.used",
                (subscription, position, time.time()),
            )

    def renew(self, subscription: str) -> None:
        """Note that somebody listens under a name, or pruning would forget it; cheap, for it writes once an hour."""
        now = time.monotonic()
        if now < self._renewed.get(subscription, -math.inf) + _RENEWAL_SECONDS:
            return
        with self._transaction() as connection:
            connection.execute("UPDATE subscription SET used = ? WHERE name = ?", (time.time(), subscription))
        self._renewed[subscription] = now

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
        return self._rows("SELECT reason, body FROM dead_letter WHERE subscription = ? ORDER BY seq", subscription)

    def prune(self, older_than: float) -> None:
        """
        Remove messages and memories that are older than a time in seconds since 1970.

        Does nothing where the file cannot be written to just now: the next process prunes as well.
        """
        rows = self._rows("SELECT appended FROM message ORDER BY seq LIMIT 1")
        if not rows or rows[0][0] >= older_than:
            return
        patience, self.patience = self.patience, 0.0
        with contextlib.suppress(JournalError), self._transaction() as connection:
            connection.execute("DELETE FROM message WHERE appended < ?", (older_than,))
            connection.execute("DELETE FROM sent_once WHERE appended < ?", (older_than,))
            connection.execute("DELETE FROM dead_letter WHERE dead < ?", (older_than,))
            connection.execute("DELETE FROM subscription WHERE used < ?", (older_than,))
        self.patience = patience


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
# Held while a thread is inside SQLite, and over every fork: a child would inherit SQLite's locks as they are at that
# instant, held by a thread that it has not got, for ever. Reentrant, so that no fork can wait for its own thread.
_in_use = threading.RLock()


def _begin_in_child() -> None:
    _in_use.release()
    for lock in list(_held):
        lock.abandon()


@functools.cache
def _watch_forks() -> None:
    """
    Have forks wait for SQLite, and close their copies of the locks.

    A kernel lock goes with its last descriptor, and a child may live longer than the process that took it.
    """
    os.register_at_fork(before=_in_use.acquire, after_in_parent=_in_use.release, after_in_child=_begin_in_child)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        msg = f"the journal {path} cannot be used: {error}"
        raise JournalError(msg) from error
