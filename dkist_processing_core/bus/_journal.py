"""
The journal: messages in an SQLite file that several processes append to, read and remove from.

The same format holds the embedded bus (rows stay, until they are old) and an outbox (rows go when the broker has
confirmed them). Not here: anything about brokers, events or threads; a `Journal` belongs to one thread at a time.
"""

import contextlib
import functools
import math
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote

from dkist_processing_core import forks
from dkist_processing_core.bus._connections import Connections
from dkist_processing_core.bus._faults import explained, is_busy
from dkist_processing_core.bus._format import WAL_MAGIC, prepare, prepare_look
from dkist_processing_core.bus._guarded import Guarded
from dkist_processing_core.bus._locks import close_in_forks, folder_lock, in_use, watch_forks
from dkist_processing_core.bus._message import EXCERPT_BYTES, Message, Properties
from dkist_processing_core.bus._queue import Place
from dkist_processing_core.errors import JournalDamagedError, JournalError, JournalLostError
from dkist_processing_core.events import MAX_BODY_BYTES
from dkist_processing_core.trusted import open_file

BUSY_SECONDS = 2.0
"""For how long a call waits by default where another process holds the file."""
_LONGEST_PAUSE_SECONDS = 0.01
# A tenth of the time at most goes into trying: what many spend on it is missing for the one that they wait for.
_PAUSES_FOR_A_TRY = 10
_LONGEST_COSTLY_PAUSE_SECONDS = 0.1
_STEPS_BETWEEN_LOOKS = 100_000
_PATIENCES_OF_A_LOOK = 5
# Every user who may read the folder can hold its lock, and without it an event is kept beside the journal.
_SHARE_OF_FOLDER = 0.1
_RENEWAL_SECONDS = 3600.0
_Result = TypeVar("_Result")
_COLUMNS = "seq, exchange, routing_key, body, properties"
_EXCERPT = f"CASE WHEN length(body) <= {MAX_BODY_BYTES} THEN body ELSE substr(body, 1, {EXCERPT_BYTES}) END"
_FULL_SIZE = f"CASE WHEN length(body) > {MAX_BODY_BYTES} THEN length(body) END"
_BATCH = 1000
_INSERT = "INSERT INTO message (appended, exchange, routing_key, properties, body) VALUES (?, ?, ?, ?, ?)"
# A damaged row may hold another type: then the subscription gets again what it may have had, and loses nothing.
POSITION = "CASE typeof(position) WHEN 'integer' THEN position ELSE 0 END"
_REMEMBERED_SECONDS = 31 * 24 * 3600.0
_SHARE_OF_FORGETTING = 0.01
_LATEST = 250e9
# How SQLite opens a file without a change to the folder (https://sqlite.org/wal.html#readonly): without the right to
# write to the shared memory it puts nothing in order there, and where nobody uses the file it needs no such memory.
# A copy of file and log without that memory is read without locks, which keeps the index of the log in this process
# (https://sqlite.org/wal.html#noshm): whether it is used meanwhile is seen afterwards.
_USED, _UNUSED, _COPIED = "mode=ro&readonly_shm=1", "mode=ro&immutable=1", "mode=ro&vfs=unix-none"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message at its place in the journal."""

    seq: int
    message: Message


@dataclass(frozen=True, slots=True)
class SetAside(Entry):
    """A message that the broker refused again and again; times are in seconds since 1970."""

    appended: float
    refused: float | None
    """When it was refused last; None where an older release did not note it."""
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Books:
    """
    What became of every message that was appended: published = confirmed + pending + set aside.

    What another journal has taken over (`Journal.take_over`) is in that one's books.
    """

    published: int
    confirmed: int
    pending: int
    set_aside: int


class Journal:
    """An open journal file. Every failure is a `JournalError` that names it."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        connections: Connections,
        *,
        patience: float = BUSY_SECONDS,
    ) -> None:
        """Take an open connection, one of those to its file; `Journal.open` makes one."""
        self.path = path
        self._connection = connection
        # A byte that is no UTF-8 spoils one text, and must not hide all the rows around it.
        connection.text_factory = _text
        self._connections = connections
        # Also by the garbage collector not without a look at what it would close.
        self._closing = forks.finalize(self, functools.partial(_close, connections, connection))
        self._closing.atexit = False
        self._is_synced = True
        self.patience = patience
        """For how many seconds each call waits where another process holds the file."""
        self.waited = 0.0
        """For how many seconds all calls together have waited so."""
        self._waits_until = math.inf
        self._acts_since = 0.0
        self._renewed: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time
        """What time it is by the clock of the file, in seconds: that of this process until the file's is known."""
        self.file = _file_at(path)
        """What tells the open file from another of its name: device and number."""
        close_in_forks(self)

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
        Open the journal at `path`, made if it is missing.

        With `synced` a commit is on disk when it returns (SQLite's synchronous FULL, in WAL mode an fsync per
        commit). Without, it survives the process but perhaps not the machine: enough to remove what was confirmed,
        since what comes back is only delivered twice.

        A file is replaceable where another process may put another in its place when it is damaged: then the lock of
        the folder is taken for the opening.

        Raises
        ------
        JournalVersionError
            for a file that a newer release wrote; it is not touched. An older one is brought up to this format.

        """
        wait = patience * _SHARE_OF_FOLDER
        lock = folder_lock(path.parent, seconds=wait) if is_replaceable else contextlib.nullcontext()
        with explained(path), lock:
            # Made here, so that the mode does not depend on the umask; SQLite gives its side files the same.
            journal = cls.connect(path, make=True, patience=patience)
            try:
                journal.limit_waits(patience)
                journal.use_first(lambda connection: prepare(connection, path, destination))
                journal._sync(fully=synced)  # noqa: SLF001 - of this class
                journal.limit_waits()
            except BaseException:
                journal.close()
                raise
        return journal

    @classmethod
    def connect(cls, path: Path, uri: str | None = None, *, make: bool = False, patience: float = BUSY_SECONDS) -> Self:
        """Connect to the file at `path`, whatever is in it: nothing of it is read yet."""
        watch_forks()
        with explained(path), in_use, Guarded(path, make=make) as file:
            # Without SQLite's own waiting: it would hold up forks, and does not cover the change to WAL.
            connections = Connections.to(path)
            connection = connections.open(uri or str(path), uri=uri is not None)
            try:
                file.check(connection)
            except PermissionError:
                connections.close(connection)
                raise
        return cls(path, connection, connections, patience=patience)

    def use_first(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Do something with a new connection that has it open all the files that it will ever keep open."""
        self._patiently(lambda: self._connections.use_first(lambda: action(self._connection)))

    @property
    def connection(self) -> sqlite3.Connection:
        """What SQLite is asked by where no method fits, while `in_use` is held."""
        return self._connection

    def bytes_at(self, size: int, at: int) -> bytes:
        """Return what the file has at a place, past SQLite; nothing where the disk cannot read it."""
        with in_use:
            return self._connections.read(size, at)

    @classmethod
    def look(cls, path: Path, read: Callable[[Self], _Result], *, patience: float = BUSY_SECONDS) -> _Result:
        """
        Return what `read` finds in the journal at `path`, and change neither a file nor the folder.

        Other processes that use it go on. No other thread of this one opens it meanwhile: SQLite would have it read
        only, too.
        """
        while True:
            before, mode = versions(path), _mode_of_look(path)
            try:
                with in_use, cls._open_to_look(path, mode, patience) as journal:
                    found = read(journal)
            except JournalError:
                if versions(path) == before:
                    raise
            else:
                if mode == _USED or versions(path) == before:
                    return found

    @classmethod
    def _open_to_look(cls, path: Path, mode: str, patience: float) -> Self:
        journal = cls.connect(path, f"file:{quote(str(path))}?{mode}", patience=patience)
        # So that a signal's handler runs, too.
        journal.connection.set_progress_handler(journal._is_endless, _STEPS_BETWEEN_LOOKS)  # noqa: SLF001 - as above
        try:
            if mode == _COPIED:
                journal.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            journal.use_first(lambda connection: prepare_look(connection, path))
        except BaseException:
            journal.close()
            raise
        return journal

    def _sync(self, *, fully: bool) -> None:
        self._is_synced = fully
        self._patiently(lambda: self._connection.execute(f"PRAGMA synchronous = {'FULL' if fully else 'NORMAL'}"))

    @contextlib.contextmanager
    def _synced(self, *, fully: bool) -> Iterator[None]:
        before = self._is_synced
        self._sync(fully=fully)
        try:
            yield
        finally:
            self._sync(fully=before)

    @property
    def is_there(self) -> bool:
        """Whether the open file is still the one at its path, with its log: somebody may have deleted it."""
        with in_use:
            if self._connections.are_at_their_paths:
                return True
            if self.file == _file_at(self.path):
                return not self._connections.has_lost_log
            return not self._connections.is_removed and not self._is_set_aside

    @property
    def is_nameless(self) -> bool:
        """Whether the open file was removed; False where it has another name, or its path shows another file."""
        with in_use:
            return self._connections.is_nameless

    @property
    def _is_set_aside(self) -> bool:
        """Whether another process has found the open file damaged, and given it another name."""
        # In a folder that this user may not read it is taken for what it was.
        with contextlib.suppress(OSError):
            return any(_file_at(each) == self.file for each in self.path.parent.glob(f"{self.path.name}.damaged-*"))
        return False

    @property
    def is_lost(self) -> bool:
        """Whether other code of this process has closed what was open here: only another opening can help."""
        with in_use, contextlib.suppress(JournalLostError):
            self._connections.check()
        return self.was_lost

    @property
    def was_lost(self) -> bool:
        """Whether that was seen already, by whatever was done last."""
        return self._connections.is_lost

    def close(self) -> None:
        """Close the file; in a fork, which has a copy of it open, too."""
        if self._closing.detach() is not None:
            _close(self._connections, self._connection)

    def discard(self) -> None:
        """Close a file that is removed in a moment, without waits for the disk."""
        self._patiently(lambda: self._connection.execute("PRAGMA synchronous = OFF"))
        self.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def _is_endless(self) -> bool:
        """Return True if what is being read takes far longer than what the format of a journal allows."""
        return time.monotonic() > self._acts_since + _PATIENCES_OF_A_LOOK * self.patience

    def limit_waits(self, seconds: float = math.inf) -> None:
        """Have all calls from now on together wait for at most so many seconds for other processes."""
        self._waits_until = self.waited + seconds

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Do something with the connection, again while another process holds the file, as long as patience lasts."""
        until = time.monotonic() + max(0.0, min(self.patience, self._waits_until - self.waited))
        pause, place = 0.001, None
        try:
            with explained(self.path):
                while True:
                    began = time.monotonic()
                    try:
                        with in_use:
                            self._connections.check()
                            self._acts_since = time.monotonic()
                            return action()
                    except sqlite3.OperationalError as error:
                        failed = time.monotonic()
                        if not is_busy(error) or failed >= until:
                            raise
                    place = place or Place(self.path)
                    if not place.wait(until - failed, self._is_free):
                        # The first of a queue tries often. Without one, as for a new file, many at once do.
                        pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
                        costly = min(_LONGEST_COSTLY_PAUSE_SECONDS, _PAUSES_FOR_A_TRY * (failed - began))
                        nap = (pause if place.is_taken else max(pause, costly)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                        time.sleep(max(0.0, min(until - failed, nap)))
                    # Not what the scheduler adds to that.
                    self.waited += min(until, time.monotonic()) - failed
        finally:
            if place is not None:
                place.leave()

    def _is_free(self) -> bool:
        with in_use:
            return self._connections.is_free

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._patiently(lambda: self._connection.execute(query, values).fetchall())

    def transact(self, action: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        Do something in one transaction, from the beginning again while another process holds the file.

        A function and no context manager: an exception may come between any two lines, out of a signal's handler, and
        must find the file's lock and this process's own given back.
        """

        def transaction() -> _Result:
            connection = self._connection
            try:
                if connection.in_transaction:
                    # Two signals in a row have kept the last one from ending.
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                result = action(connection)
                connection.execute("COMMIT")
            finally:
                # Also after a commit that failed, as it does on a full disk; some errors have rolled back themselves.
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            return result

        return self._patiently(transaction)

    def _write(self, statement: str, *values: object) -> None:
        self.transact(lambda connection: connection.execute(statement, values))

    def append(self, messages: Iterable[Message], *, once: bool = False, note: str | None = None) -> list[int]:
        """
        Append messages in one synced transaction and return their sequence numbers.

        With `once`, a message whose id this journal was ever given before is left out. A `note` is there with them.
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
                # Within the transaction: a damaged file is only replaced while no process writes to it.
                msg = f"the journal {self.path} was removed"
                raise JournalError(msg)
            if note is not None:
                _is_first(connection, note, now)
            taken = [row for message_id, row in rows if not once or _is_first(connection, message_id, now)]
            return [cast("int", connection.execute(_INSERT, row).lastrowid) for row in taken]

        return self.transact(insert)

    def remember(self, message_id: str) -> None:
        """Note an id without a message; what was noted more than a month ago is forgotten now and then."""

        def note(connection: sqlite3.Connection) -> None:
            now = time.time()
            _is_first(connection, message_id, now)
            if random.random() < _SHARE_OF_FORGETTING:  # noqa: S311 - no secret
                # Some of them, from anywhere: not the longer the more there are.
                connection.execute(
                    "DELETE FROM sent_once WHERE appended < ? AND message_id IN"
                    " (SELECT message_id FROM sent_once WHERE message_id >= ? ORDER BY message_id LIMIT ?)",
                    (now - _REMEMBERED_SECONDS, secrets.token_hex(4), _BATCH),
                )

        self.transact(note)

    def remembers(self, message_id: str) -> bool:
        """Say whether an id was noted, by `remember` or with a message that is sent once."""
        return bool(self._rows("SELECT 1 FROM sent_once WHERE message_id = ?", message_id))

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` messages behind the place `after`, in order; an excerpt of a body that is too large."""
        query = (
            f"SELECT seq, exchange, routing_key, {_EXCERPT}, properties, {_FULL_SIZE} FROM message"  # noqa: S608 - constants
            " WHERE seq > ? ORDER BY seq LIMIT ?"
        )
        while True:
            rows = self._rows(query, after, limit)
            if any(row[0] <= before for before, row in zip([after, *(row[0] for row in rows)], rows, strict=False)):
                # Read in circles, it would never end.
                msg = f"the journal {self.path} cannot be used: its rows are out of order"
                raise JournalDamagedError(msg)
            entries, _ = _entries(rows)
            if entries or not rows:
                return entries
            # None of these can be read: they are no reason to keep back what follows.
            after = rows[-1][0]

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """
        Return up to `limit` messages behind the place `after` that are neither confirmed nor set aside.

        Those for the exchanges of `without` are passed over.
        """
        marks = ",".join("?" * len(without))
        query = (
            f"SELECT {_COLUMNS} FROM message WHERE seq > ? AND set_aside IS NULL AND exchange NOT IN ({marks})"  # noqa: S608 - marks
            " ORDER BY seq LIMIT ?"
        )
        while True:
            entries, unreadable = _entries(self._rows(query, after, *without, limit))
            if not unreadable:
                return entries
            for seq, reason in unreadable:
                # Somebody has edited it, or the disk has: it is no reason to keep the others back.
                self.note_refusal(seq, f"it cannot be read in the journal: {reason}", max_tries=1)

    def set_aside(self) -> list[SetAside]:
        """Return what is set aside, in order; an excerpt of a body that is too large."""
        rows = self._rows(
            f"SELECT seq, exchange, routing_key, {_EXCERPT}, properties, {_FULL_SIZE}, appended, refused, tries,"  # noqa: S608 - constants
            " set_aside FROM message WHERE set_aside IS NOT NULL ORDER BY seq"
        )
        return [
            SetAside(
                seq,
                Message(str(exchange), str(key), _as_bytes(body), _readable(properties), full_size),
                appended=_number(appended) or 0.0,
                refused=_number(refused),
                tries=int(_number(tries) or 0),
                reason=str(reason),
            )
            for seq, exchange, key, body, properties, full_size, appended, refused, tries, reason in rows
        ]

    def retry(self, seqs: Iterable[int] | None = None) -> int:
        """Have messages that were set aside, or all of them, tried again as if for the first time; return how many."""
        again = "UPDATE message SET set_aside = NULL, tries = 0 WHERE set_aside IS NOT NULL"
        if seqs is None:
            return self.transact(lambda connection: connection.execute(again).rowcount)
        rows = [(seq,) for seq in seqs]
        return self.transact(lambda connection: connection.executemany(f"{again} AND seq = ?", rows).rowcount)

    def take_over(
        self, other: "Journal", exchanges: Mapping[str, str] | None = None, *, until: float = math.inf
    ) -> int:
        """
        Append all that another journal holds, in its order, synced, and remove it there; return how many messages.

        Ended in between, some of them are in both, and so are delivered twice. `exchanges` names the exchange here
        for one there. A message that is sent once only (`append`) is not taken if it was ever given to this journal.
        When it is `until` by `time.monotonic` the rest is left where it is.
        """
        taken = 0
        only_once = other.sent_once()
        # A removal that the disk loses only has it delivered twice.
        with self._synced(fully=True), other._synced(fully=False):  # noqa: SLF001 - of this class
            while time.monotonic() < until and (rows := other.whole_rows(_BATCH)):
                self._append_rows(rows, only_once, exchanges or {})
                other.note_taken_over([row[0] for row in rows])
                taken += len(rows)
            if only_once and not other.whole_rows(1):
                # Only now: a message whose id was noted before would be left out. Among them are notes of other things.
                self.transact(
                    lambda connection: connection.executemany(
                        "INSERT OR IGNORE INTO sent_once VALUES (?, ?)", [(each, time.time()) for each in only_once]
                    )
                )
        return taken

    def _append_rows(self, rows: Sequence[Any], only_once: AbstractSet[str], exchanges: Mapping[str, str]) -> None:
        now = time.time()

        def insert(connection: sqlite3.Connection) -> None:
            for _, appended, exchange, key, properties, body, tries, set_aside, refused in rows:
                message_id = _readable(properties).message_id
                if message_id not in only_once or _is_first(connection, message_id, now):
                    connection.execute(
                        "INSERT INTO message (appended, exchange, routing_key, properties, body, tries, set_aside,"
                        " refused) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (appended, exchanges.get(exchange, exchange), key, properties, body, tries, set_aside, refused),
                    )

        self.transact(insert)

    def whole_rows(self, limit: int) -> list[Any]:
        """Return up to `limit` of the oldest messages as they are stored, for another journal to take over."""
        return self._rows(
            "SELECT seq, appended, exchange, routing_key, properties, body, tries, set_aside, refused FROM message"
            " ORDER BY seq LIMIT ?",
            limit,
        )

    def sent_once(self) -> AbstractSet[str]:
        """Return the ids of the messages that this journal takes only once."""
        return {message_id for (message_id,) in self._rows("SELECT message_id FROM sent_once")}

    def take_over_rows(self, rows: Sequence[Sequence[Any]], note: tuple[str, str], *, keeps_numbers: bool) -> None:
        """
        Append rows of a damaged file, with a fact that states how far it was read, all in one transaction.

        With `keeps_numbers` the rows are of the file that this one continues, and stand before all that it was given.
        """

        def insert(connection: sqlite3.Connection) -> None:
            taken = 0
            for seq, *values in rows:
                row = [seq if keeps_numbers else None, *values]
                with contextlib.suppress(sqlite3.IntegrityError):
                    taken += connection.execute(
                        "INSERT INTO message (seq, appended, exchange, routing_key, properties, body, tries, set_aside,"
                        " refused) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        row,
                    ).rowcount
            if keeps_numbers:
                # In the books they count as published here.
                connection.execute("UPDATE fact SET value = value - ? WHERE name = 'taken_over'", (taken,))
            connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", note)

        self.transact(insert)

    def fact(self, name: str) -> object:
        """Return what was noted under a name; None where nothing was."""
        rows = self._rows("SELECT value FROM fact WHERE name = ?", name)
        return rows[0][0] if rows else None

    def continues(self, file: tuple[int, int] | None) -> bool:
        """Return True if this file was begun in the place of a damaged one, by device and number, with its numbers."""
        return file is not None and self.fact("continues") == "{}:{}".format(*file)

    def change(self, statements: Iterable[tuple[str, Sequence[object]]]) -> None:
        """Carry out statements in one transaction."""

        def carry_out(connection: sqlite3.Connection) -> None:
            for statement, values in statements:
                connection.execute(statement, values)

        self.transact(carry_out)

    def note_taken_over(self, seqs: Sequence[int]) -> None:
        """Remove what another journal has taken over, and its mention in the books."""

        def remove(connection: sqlite3.Connection) -> None:
            taken = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
            connection.execute(
                "INSERT INTO fact VALUES ('taken_over', ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                (taken, taken),
            )

        self.transact(remove)

    def holds(self, first: int, last: int) -> bool:
        """Say whether any message from `first` to `last` is still pending."""
        query = "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? AND set_aside IS NULL LIMIT 1"
        return bool(self._rows(query, first, last))

    def remove_confirmed(self, seqs: Collection[int]) -> None:
        """Remove what the broker has confirmed."""

        def remove(connection: sqlite3.Connection) -> None:
            removed = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
            connection.execute("UPDATE fact SET value = value + ? WHERE name = 'confirmed'", (removed,))

        self.transact(remove)

    def note_refusal(self, seq: int, reason: str, *, max_tries: int) -> bool:
        """Count a refusal of one message; the last of `max_tries` sets it aside. Return whether it was."""

        def note(connection: sqlite3.Connection) -> bool:
            connection.execute(
                "UPDATE message SET tries = tries + 1, refused = ?,"
                " set_aside = CASE WHEN tries + 1 >= ? THEN ? END WHERE seq = ?",
                (time.time(), max_tries, reason, seq),
            )
            row = connection.execute("SELECT set_aside FROM message WHERE seq = ?", (seq,)).fetchone()
            return row is not None and row[0] is not None

        return self.transact(note)

    def books(self) -> Books:
        """Return the books, all of one instant, at a cost that does not grow with what is in them."""
        (row,) = self._rows(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0)"
            " - coalesce((SELECT value FROM fact WHERE name = 'taken_over'), 0),"
            " (SELECT value FROM fact WHERE name = 'confirmed'),"
            " (SELECT value FROM fact WHERE name = 'set_aside'),"
            " (SELECT value FROM fact WHERE name = 'pruned')"
        )
        published, confirmed, set_aside, pruned = (int(_number(value) or 0) for value in row)
        return Books(published, confirmed, published - confirmed - set_aside - pruned, set_aside)

    def first(self) -> int | None:
        """Return the number of the oldest message; None where there is none."""
        (found,) = self._rows("SELECT min(seq) FROM message")[0]
        return None if found is None else int(found)

    def last(self) -> int:
        """Return the place behind the newest message."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        return int(_number(rows[0][0]) or 0) if rows else 0

    def first_since(self, moment: float, after: int) -> int | None:
        """Return the first of the messages behind a place that was appended at a time since 1970, or later."""
        rows = self._rows("SELECT seq FROM message WHERE seq > ? AND appended >= ? ORDER BY seq LIMIT 1", after, moment)
        return int(rows[0][0]) if rows else None

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        return int(self._rows("PRAGMA data_version")[0][0])

    @property
    def destination(self) -> str:
        """For which bus the messages are, as `open` was told by whoever made the file."""
        return str(self.fact("destination") or "")

    @property
    def oldest(self) -> float | None:
        """When the oldest pending message was appended, in seconds since 1970; None where nothing is pending."""
        rows = self._rows("SELECT appended FROM message WHERE set_aside IS NULL ORDER BY seq LIMIT 1")
        return (_number(rows[0][0]) or 0.0) if rows else None

    @property
    def unreachable_until(self) -> float:
        """Until when (seconds since 1970) trying the broker again would only cost time."""
        return _number(self.fact("unreachable_until")) or 0.0

    @unreachable_until.setter
    def unreachable_until(self, moment: float) -> None:
        self._write("UPDATE fact SET value = ? WHERE name = 'unreachable_until'", moment)

    def position(self, subscription: str, default: int, wanted: str | None = None) -> int:
        """
        Return the place up to which a subscription is done, noting `default` as the place of a new one.

        `wanted` states which events it wants, for processes that remove old ones.
        """

        def take(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name)"  # noqa: S608 - a constant
                f" DO UPDATE SET used = excluded.used, position = {POSITION}",
                (subscription, default, self.clock()),
            )
            if wanted is not None:
                note = (f"wanted {subscription}", wanted)
                connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", note)
            row = connection.execute("SELECT position FROM subscription WHERE name = ?", (subscription,)).fetchone()
            return int(row[0])

        return self.transact(take)

    def lost_places(self, subscription: str) -> bool:
        """Return True if a name is unknown as a damaged file could not give its place, with rows from before then."""
        lost, first = self.fact("places_lost"), self.first()
        if not isinstance(lost, int) or first is None or first > lost + 1:
            return False
        return not self._rows("SELECT 1 FROM subscription WHERE name = ?", subscription)

    def advance(self, subscription: str, position: int) -> None:
        """Note that a subscription is done up to `position`."""
        self._write(
            "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET position = max(position, excluded.position), used = excluded.used",
            subscription,
            position,
            self.clock(),
        )

    def renew(self, subscription: str) -> None:
        """Note that a name is in use, or pruning would not keep its events; cheap, for it writes once an hour."""
        now = time.monotonic()
        if now < self._renewed.get(subscription, -math.inf) + _RENEWAL_SECONDS:
            return
        self._write("UPDATE subscription SET used = ? WHERE name = ?", self.clock(), subscription)
        self._renewed[subscription] = now

    def missed(self, subscription: str) -> int:
        """Return how many events a subscription has lost that were not reported yet."""
        return int(_number(self.fact(f"missed {subscription}")) or 0)

    def note_reported(self, subscription: str, missed: int) -> None:
        """Note that so many lost events were reported."""
        self._write("UPDATE fact SET value = value - ? WHERE name = ?", missed, f"missed {subscription}")

    def bury(self, subscription: str, entry: Entry, reason: str) -> None:
        """Keep a message that a subscription cannot use, with the reason."""
        self._write(
            "INSERT OR IGNORE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?)",
            subscription,
            entry.seq,
            self.clock(),
            reason,
            entry.message.properties.message_id,
            entry.message.body,
        )

    def dead_letters(self, subscription: str) -> list[tuple[str, bytes]]:
        """Return the reason and the body of each message that a subscription could not use."""
        return self._rows("SELECT reason, body FROM dead_letter WHERE subscription = ? ORDER BY seq", subscription)


def _close(connections: Connections, connection: sqlite3.Connection) -> None:
    with in_use:
        connections.close(connection)


def _file_at(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _mode_of_look(path: Path) -> str:
    if path.with_name(f"{path.name}-shm").exists():
        return _USED
    log = path.with_name(f"{path.name}-wal")
    with contextlib.suppress(OSError), os.fdopen(open_file(log, os.O_RDONLY, sets_mode=False), "rb") as file:
        if int.from_bytes(file.read(4), "big") in WAL_MAGIC:
            # The two were copied without the memory.
            return _COPIED
    return _UNUSED


def versions(path: Path) -> list[tuple[int, int, int] | None]:
    """Return what changes when a journal's files do."""
    found: list[tuple[int, int, int] | None] = []
    for name in (path.name, f"{path.name}-wal"):
        try:
            each = path.with_name(name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((each.st_ino, each.st_size, each.st_mtime_ns))
    return found


def _entries(rows: Iterable[Sequence[Any]]) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Return the messages of rows, and of those that cannot be read the number and why."""
    entries, unreadable = [], []
    for seq, exchange, key, body, properties, *full_size in rows:
        try:
            message = Message(exchange, key, _as_bytes(body), Properties.from_json(properties), *full_size)
            entries.append(Entry(seq, message))
        except (TypeError, ValueError) as error:
            unreadable.append((seq, str(error)))
    return entries, unreadable


def _text(encoded: bytes) -> str:
    return encoded.decode(errors="replace")


def _as_bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def _number(value: object) -> float | None:
    """Return a stored number, which is in a year that a calendar has; None where there is something else."""
    is_number = isinstance(value, int | float) and abs(value) < _LATEST
    return float(value) if is_number else None  # type: ignore[arg-type]


def _readable(properties: str) -> Properties:
    """Return stored properties, or none to speak of where they cannot be read, or hold something else than texts."""
    with contextlib.suppress(TypeError, ValueError):
        found = Properties.from_json(properties)
        if isinstance(found.message_id, str) and isinstance(found.type, str | None):
            return found
    return Properties(message_id="", content_type="")


def _is_first(connection: sqlite3.Connection, message_id: str, now: float) -> bool:
    """Note an id, and say whether this journal was never given it before."""
    row = (message_id, now)
    return connection.execute("INSERT OR IGNORE INTO sent_once VALUES (?, ?)", row).rowcount > 0
