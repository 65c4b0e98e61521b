"""
The journal: an SQLite file of messages. Several processes append to it, read it and remove rows from it.

The embedded bus (rows stay until they are old) and an outbox (a row is removed when the broker has confirmed it) use
the same format. Not here: anything about brokers, events or threads; a `Journal` belongs to one thread at a time.
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

from dkist_processing_core.errors import JournalDamagedError, JournalError, JournalLostError
from dkist_processing_core.events import MAX_BODY_BYTES
from dkist_processing_core.journal._connections import Connections
from dkist_processing_core.journal._format import WAL_MAGIC, prepare, prepare_look
from dkist_processing_core.journal._guarded import Guarded
from dkist_processing_core.journal._queue import Place
from dkist_processing_core.journal.faults import explained, is_busy
from dkist_processing_core.journal.locks import close_in_forks, folder_lock, in_use, watch_forks
from dkist_processing_core.journal.message import EXCERPT_BYTES, Message, Properties
from dkist_processing_core.process import forks
from dkist_processing_core.process.trusted import open_file

BUSY_SECONDS = 2.0
"""How long a call waits by default while another process holds the file."""
_LONGEST_PAUSE_SECONDS = 0.01
# At most a tenth of the time is spent on attempts: the attempts of many processes slow down the one they wait for.
_PAUSES_FOR_A_TRY = 10
_LONGEST_COSTLY_PAUSE_SECONDS = 0.1
_STEPS_BETWEEN_LOOKS = 100_000
_PATIENCES_OF_A_LOOK = 5
# Every user who may read the folder can hold its lock. A process without the lock stores its event beside the journal.
_SHARE_OF_FOLDER = 0.1
_RENEWAL_SECONDS = 3600.0
_Result = TypeVar("_Result")
_COLUMNS = "seq, exchange, routing_key, body, properties"
_EXCERPT = f"CASE WHEN length(body) <= {MAX_BODY_BYTES} THEN body ELSE substr(body, 1, {EXCERPT_BYTES}) END"
_FULL_SIZE = f"CASE WHEN length(body) > {MAX_BODY_BYTES} THEN length(body) END"
_BATCH = 1000
_INSERT = "INSERT INTO message (appended, exchange, routing_key, properties, body) VALUES (?, ?, ?, ?, ?)"
# A damaged row may hold another type. Then the subscription receives some events twice, and loses none.
POSITION = "CASE typeof(position) WHEN 'integer' THEN position ELSE 0 END"
_REMEMBERED_SECONDS = 31 * 24 * 3600.0
_SHARE_OF_FORGETTING = 0.01
_LATEST = 250e9
# Modes in which SQLite opens a file without changing the folder (https://sqlite.org/wal.html#readonly). Used: SQLite
# may not write to the shared memory, so it repairs nothing there. Unused: no process uses the file, so SQLite needs no
# shared memory. Copied: file and log were copied without the shared memory. SQLite reads them without locks and keeps
# the index of the log in this process (https://sqlite.org/wal.html#noshm); `look` checks afterwards whether another
# process has used the file meanwhile.
_USED, _UNUSED, _COPIED = "mode=ro&readonly_shm=1", "mode=ro&immutable=1", "mode=ro&vfs=unix-none"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message and its sequence number in the journal."""

    seq: int
    message: Message


@dataclass(frozen=True, slots=True)
class SetAside(Entry):
    """A message that the broker refused repeatedly; times are in seconds since 1970."""

    appended: float
    refused: float | None
    """Time of the last refusal; None if an older release did not record it."""
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Books:
    """
    The counts of all appended messages by state: published = confirmed + pending + set aside.

    Messages that another journal has taken over (`Journal.take_over`) count in the books of that journal.
    """

    published: int
    confirmed: int
    pending: int
    set_aside: int


class Journal:
    """An open journal file. Every failure is a `JournalError` that names the file."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        connections: Connections,
        *,
        patience: float = BUSY_SECONDS,
    ) -> None:
        """Wrap an open connection, which is one of `connections`; `Journal.open` opens a journal by its path."""
        self.path = path
        self._connection = connection
        # A byte that is not valid UTF-8 spoils one text. It must not hide all the rows around it.
        connection.text_factory = _text
        self._connections = connections
        # The garbage collector, too, must check the descriptors before it closes them.
        self._closing = forks.finalize(self, functools.partial(_close, connections, connection))
        self._closing.atexit = False
        self._is_synced = True
        self.patience = patience
        """How many seconds each call waits while another process holds the file."""
        self.waited = 0.0
        """How many seconds all calls together have waited for other processes."""
        self._waits_until = math.inf
        self._acts_since = 0.0
        self._renewed: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time
        """Returns the time by the file's clock, in seconds; by this process's clock until the file's is known."""
        self.file = _file_at(path)
        """The identity of the open file: device and inode number. Another file of the same name has another one."""
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
        Open the journal at `path`, and create it if it is missing.

        With `synced` a commit is on disk when it returns (SQLite's synchronous FULL: in WAL mode an fsync per
        commit). Without `synced` a commit survives the end of the process, but perhaps not a crash of the machine.
        This is enough for removing confirmed messages: a removal that is lost only causes a second delivery.

        A file is replaceable if another process may replace it when it is damaged. Then this function holds the lock
        of the folder while it opens the file. A file of an older format is upgraded to this format.

        Raises:
            JournalVersionError: A newer release wrote the file; it is not changed.
        """
        wait = patience * _SHARE_OF_FOLDER
        lock = folder_lock(path.parent, seconds=wait) if is_replaceable else contextlib.nullcontext()
        with explained(path), lock:
            # The file is created here, so that its mode does not depend on the umask. SQLite gives its side files the
            # same mode.
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
        """Connect to the file at `path` without reading it: its content may be anything."""
        watch_forks()
        with explained(path), in_use, Guarded(path, make=make) as file:
            # SQLite's own busy timeout is off: it would delay forks, and it does not cover the change to WAL mode.
            connections = Connections.to(path)
            connection = connections.open(uri or str(path), uri=uri is not None)
            try:
                file.check(connection)
            except PermissionError:
                connections.close(connection)
                raise
        return cls(path, connection, connections, patience=patience)

    def use_first(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Run the first action on a new connection, after which it has opened all the files that it keeps open."""
        self._patiently(lambda: self._connections.use_first(lambda: action(self._connection)))

    @property
    def connection(self) -> sqlite3.Connection:
        """The SQLite connection, for queries that no method covers; use it only while holding `in_use`."""
        return self._connection

    def bytes_at(self, size: int, at: int) -> bytes:
        """Return `size` bytes of the file from offset `at`, read without SQLite; b"" if the disk cannot read them."""
        with in_use:
            return self._connections.read(size, at)

    @classmethod
    def look(cls, path: Path, read: Callable[[Self], _Result], *, patience: float = BUSY_SECONDS) -> _Result:
        """
        Return the result of `read` for the journal at `path`, and change neither a file nor the folder.

        Other processes continue to use the journal meanwhile. No other thread of this process may open it meanwhile:
        SQLite would open it read-only there, too.
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
        # The progress handler also lets signal handlers run during a query.
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
        """Whether the open file and its log are still at their paths; False if they were deleted or replaced."""
        with in_use:
            if self._connections.are_at_their_paths:
                return True
            if self.file == _file_at(self.path):
                return not self._connections.has_lost_log
            return not self._connections.is_removed and not self._is_set_aside

    @property
    def is_nameless(self) -> bool:
        """Whether the open file was removed; False if it was only renamed, or if another file is at its path."""
        with in_use:
            return self._connections.is_nameless

    @property
    def _is_set_aside(self) -> bool:
        """Whether another process has found the open file damaged, and has renamed it."""
        # If this user may not list the folder, the answer is False.
        with contextlib.suppress(OSError):
            return any(_file_at(each) == self.file for each in self.path.parent.glob(f"{self.path.name}.damaged-*"))
        return False

    @property
    def is_lost(self) -> bool:
        """Whether other code of this process has closed descriptors of this journal; it must be opened again then."""
        with in_use, contextlib.suppress(JournalLostError):
            self._connections.check()
        return self.was_lost

    @property
    def was_lost(self) -> bool:
        """Whether an earlier call has already detected closed descriptors (`is_lost`); this makes no new check."""
        return self._connections.is_lost

    def close(self) -> None:
        """Close the file; a fork calls this, too, for its copy of the open file."""
        if self._closing.detach() is not None:
            _close(self._connections, self._connection)

    def discard(self) -> None:
        """Close a file that is about to be removed, without waiting for the disk."""
        self._patiently(lambda: self._connection.execute("PRAGMA synchronous = OFF"))
        self.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def _is_endless(self) -> bool:
        """Return True if the current read takes far longer than any read of a valid journal."""
        return time.monotonic() > self._acts_since + _PATIENCES_OF_A_LOOK * self.patience

    def limit_waits(self, seconds: float = math.inf) -> None:
        """Limit the total time that all calls from now on wait for other processes to `seconds`."""
        self._waits_until = self.waited + seconds

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Run `action`, and retry it while another process holds the file, until the patience has passed."""
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
                        # The first process of the queue retries often. Without a queue, as for a new file, many
                        # processes retry at the same time.
                        pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
                        costly = min(_LONGEST_COSTLY_PAUSE_SECONDS, _PAUSES_FOR_A_TRY * (failed - began))
                        nap = (pause if place.is_taken else max(pause, costly)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                        time.sleep(max(0.0, min(until - failed, nap)))
                    # A delay by the scheduler after `until` does not count.
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
        Run `action` in one transaction, and retry the whole transaction while another process holds the file.

        This is a function and not a context manager: a signal handler may raise an exception between any two lines,
        and the lock of the file and the lock of this process must be released even then.
        """

        def transaction() -> _Result:
            connection = self._connection
            try:
                if connection.in_transaction:
                    # Two signals in a row have prevented the end of the previous transaction.
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                result = action(connection)
                connection.execute("COMMIT")
            finally:
                # Also after a failed commit, as on a full disk. After some errors SQLite has already rolled back.
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
                _is_first(connection, note, now)
            taken = [row for message_id, row in rows if not once or _is_first(connection, message_id, now)]
            return [cast("int", connection.execute(_INSERT, row).lastrowid) for row in taken]

        return self.transact(insert)

    def remember(self, message_id: str) -> None:
        """Store an id without a message; ids that were stored more than a month ago are deleted occasionally."""

        def note(connection: sqlite3.Connection) -> None:
            now = time.time()
            _is_first(connection, message_id, now)
            if random.random() < _SHARE_OF_FORGETTING:  # noqa: S311 - no secret
                # Delete a limited number from a random place, so that the time does not grow with the number of ids.
                connection.execute(
                    "DELETE FROM sent_once WHERE appended < ? AND message_id IN"
                    " (SELECT message_id FROM sent_once WHERE message_id >= ? ORDER BY message_id LIMIT ?)",
                    (now - _REMEMBERED_SECONDS, secrets.token_hex(4), _BATCH),
                )

        self.transact(note)

    def remembers(self, message_id: str) -> bool:
        """Return True if an id was stored, by `remember` or with a message that is sent once."""
        return bool(self._rows("SELECT 1 FROM sent_once WHERE message_id = ?", message_id))

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` messages after number `after`, in order; with an excerpt of a body that is too large."""
        query = (
            f"SELECT seq, exchange, routing_key, {_EXCERPT}, properties, {_FULL_SIZE} FROM message"  # noqa: S608 - constants
            " WHERE seq > ? ORDER BY seq LIMIT ?"
        )
        while True:
            rows = self._rows(query, after, limit)
            if any(row[0] <= before for before, row in zip([after, *(row[0] for row in rows)], rows, strict=False)):
                # Reading on could go round in circles, and never end.
                msg = f"the journal {self.path} cannot be used: its rows are out of order"
                raise JournalDamagedError(msg)
            entries, _ = _entries(rows)
            if entries or not rows:
                return entries
            # None of these rows can be read. The rows that follow are read all the same.
            after = rows[-1][0]

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """
        Return up to `limit` messages after number `after` that are neither confirmed nor set aside.

        Messages for the exchanges in `without` are skipped.
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
                # A user has edited the row, or the disk has damaged it. The other messages are delivered all the same.
                self.note_refusal(seq, f"it cannot be read in the journal: {reason}", max_tries=1)

    def set_aside(self) -> list[SetAside]:
        """Return the messages that are set aside, in order; with an excerpt of a body that is too large."""
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
        """Make messages that were set aside (all if `seqs` is None) pending again, with no tries; return how many."""
        again = "UPDATE message SET set_aside = NULL, tries = 0 WHERE set_aside IS NOT NULL"
        if seqs is None:
            return self.transact(lambda connection: connection.execute(again).rowcount)
        rows = [(seq,) for seq in seqs]
        return self.transact(lambda connection: connection.executemany(f"{again} AND seq = ?", rows).rowcount)

    def take_over(
        self, other: "Journal", exchanges: Mapping[str, str] | None = None, *, until: float = math.inf
    ) -> int:
        """
        Append all messages of another journal in their order, synced, and remove them there; return how many.

        If the process ends in between, some messages are in both journals, and are delivered twice. `exchanges` maps
        an exchange of the other journal to the exchange here. A message that is sent only once (`append`) is skipped
        if this journal has ever received it. At the time `until` (`time.monotonic`) the remaining messages stay where
        they are.
        """
        taken = 0
        only_once = other.sent_once()
        # If the disk loses a removal, the message is only delivered twice.
        with self._synced(fully=True), other._synced(fully=False):  # noqa: SLF001 - of this class
            while time.monotonic() < until and (rows := other.whole_rows(_BATCH)):
                self._append_rows(rows, only_once, exchanges or {})
                other.note_taken_over([row[0] for row in rows])
                taken += len(rows)
            if only_once and not other.whole_rows(1):
                # Only at the end: a message whose id is already stored would be left out. Some of the ids are notes
                # without a message.
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
        """Return up to `limit` of the oldest messages as stored rows, which another journal can take over."""
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
        Append rows of a damaged file, and store how far that file was read as a fact, all in one transaction.

        With `keeps_numbers` the rows come from the file that this one continues. They keep their numbers, which are
        lower than those of all messages appended to this file.
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
                # In the books these rows count as published here.
                connection.execute("UPDATE fact SET value = value - ? WHERE name = 'taken_over'", (taken,))
            connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", note)

        self.transact(insert)

    def fact(self, name: str) -> object:
        """Return the value stored under a name; None if there is none."""
        rows = self._rows("SELECT value FROM fact WHERE name = ?", name)
        return rows[0][0] if rows else None

    def continues(self, file: tuple[int, int] | None) -> bool:
        """Return True if this file replaced the damaged `file` (device, inode) and continues its row numbers."""
        return file is not None and self.fact("continues") == "{}:{}".format(*file)

    def change(self, statements: Iterable[tuple[str, Sequence[object]]]) -> None:
        """Execute statements in one transaction."""

        def carry_out(connection: sqlite3.Connection) -> None:
            for statement, values in statements:
                connection.execute(statement, values)

        self.transact(carry_out)

    def note_taken_over(self, seqs: Sequence[int]) -> None:
        """Remove the messages that another journal has taken over, from this file and from its books."""

        def remove(connection: sqlite3.Connection) -> None:
            taken = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
            connection.execute(
                "INSERT INTO fact VALUES ('taken_over', ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                (taken, taken),
            )

        self.transact(remove)

    def holds(self, first: int, last: int) -> bool:
        """Return True if any message from `first` to `last` is still pending."""
        query = "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? AND set_aside IS NULL LIMIT 1"
        return bool(self._rows(query, first, last))

    def remove_confirmed(self, seqs: Collection[int]) -> None:
        """Remove the messages that the broker has confirmed."""

        def remove(connection: sqlite3.Connection) -> None:
            removed = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
            connection.execute("UPDATE fact SET value = value + ? WHERE name = 'confirmed'", (removed,))

        self.transact(remove)

    def note_refusal(self, seq: int, reason: str, *, max_tries: int) -> bool:
        """Count a refusal of one message; set it aside after `max_tries`. Return True if it is set aside."""

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
        """Return the books, all counts of one instant; the cost does not grow with the number of messages."""
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
        """Return the number of the oldest message; None if there is none."""
        (found,) = self._rows("SELECT min(seq) FROM message")[0]
        return None if found is None else int(found)

    def last(self) -> int:
        """Return the number of the message that was appended last; 0 if none was ever appended."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        return int(_number(rows[0][0]) or 0) if rows else 0

    def first_since(self, moment: float, after: int) -> int | None:
        """Return the number of the first message after number `after` that was appended at `moment` or later."""
        rows = self._rows("SELECT seq FROM message WHERE seq > ? AND appended >= ? ORDER BY seq LIMIT 1", after, moment)
        return int(rows[0][0]) if rows else None

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        return int(self._rows("PRAGMA data_version")[0][0])

    @property
    def destination(self) -> str:
        """The bus that the messages are for: the `destination` that `open` received when it created the file."""
        return str(self.fact("destination") or "")

    @property
    def oldest(self) -> float | None:
        """Time when the oldest pending message was appended, in seconds since 1970; None if no message is pending."""
        rows = self._rows("SELECT appended FROM message WHERE set_aside IS NULL ORDER BY seq LIMIT 1")
        return (_number(rows[0][0]) or 0.0) if rows else None

    @property
    def unreachable_until(self) -> float:
        """Time (seconds since 1970) before which another attempt to reach the broker would only cost time."""
        return _number(self.fact("unreachable_until")) or 0.0

    @unreachable_until.setter
    def unreachable_until(self, moment: float) -> None:
        self._write("UPDATE fact SET value = ? WHERE name = 'unreachable_until'", moment)

    def position(self, subscription: str, default: int, wanted: str | None = None) -> int:
        """
        Return the number up to which a subscription has settled its messages; a new subscription gets `default`.

        `wanted` names the events that the subscription selects. Processes that remove old events use it.
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
        """Return True if damage may have lost the position of an unknown `subscription` and older rows remain."""
        lost, first = self.fact("places_lost"), self.first()
        if not isinstance(lost, int) or first is None or first > lost + 1:
            return False
        return not self._rows("SELECT 1 FROM subscription WHERE name = ?", subscription)

    def advance(self, subscription: str, position: int) -> None:
        """Store that a subscription has settled its messages up to `position`."""
        self._write(
            "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET position = max(position, excluded.position), used = excluded.used",
            subscription,
            position,
            self.clock(),
        )

    def renew(self, subscription: str) -> None:
        """Store that a name is in use, so that pruning keeps its events; cheap, because it writes once an hour."""
        now = time.monotonic()
        if now < self._renewed.get(subscription, -math.inf) + _RENEWAL_SECONDS:
            return
        self._write("UPDATE subscription SET used = ? WHERE name = ?", self.clock(), subscription)
        self._renewed[subscription] = now

    def missed(self, subscription: str) -> int:
        """Return how many lost events of a subscription are still unreported."""
        return int(_number(self.fact(f"missed {subscription}")) or 0)

    def note_reported(self, subscription: str, missed: int) -> None:
        """Subtract `missed` reported events from the unreported lost events."""
        self._write("UPDATE fact SET value = value - ? WHERE name = ?", missed, f"missed {subscription}")

    def dead_letter(self, subscription: str, entry: Entry, reason: str) -> None:
        """Dead-letter a message that a subscription cannot use, with the reason."""
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
        """Return the reason and the body of each dead letter of a subscription."""
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
            # File and log were copied without the shared memory.
            return _COPIED
    return _UNUSED


def versions(path: Path) -> list[tuple[int, int, int] | None]:
    """Return inode, size and time of change of a journal's file and log: they change when the files change."""
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
    """Return the readable rows as messages, and the number and the reason of each unreadable row."""
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
    """Return a stored number; None if the value is no number, or as a time exceeds the years of the calendar."""
    is_number = isinstance(value, int | float) and abs(value) < _LATEST
    return float(value) if is_number else None  # type: ignore[arg-type]


def _readable(properties: str) -> Properties:
    """Return stored properties, or empty ones if they cannot be read or hold other values than texts."""
    with contextlib.suppress(TypeError, ValueError):
        found = Properties.from_json(properties)
        if isinstance(found.message_id, str) and isinstance(found.type, str | None):
            return found
    return Properties(message_id="", content_type="")


def _is_first(connection: sqlite3.Connection, message_id: str, now: float) -> bool:
    """Store an id, and return True if this journal has never received it before."""
    row = (message_id, now)
    return connection.execute("INSERT OR IGNORE INTO sent_once VALUES (?, ?)", row).rowcount > 0
