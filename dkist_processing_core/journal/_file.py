"""
The file of a journal and the connection to it: opening and closing, transactions, and the wait for other processes.

A `JournalFile` works for a file with any content. Not here: its tables (_journal), and the descriptors (_connections).
"""

import contextlib
import functools
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from dkist_processing_core.errors import JournalLostError
from dkist_processing_core.journal._connections import Connections
from dkist_processing_core.journal._opened_file_check import OpenedFileCheck
from dkist_processing_core.journal._queue import Wait
from dkist_processing_core.journal.faults import explained, is_busy
from dkist_processing_core.journal.locks import close_before_use_in_forks, close_inherited, in_use, watch_forks
from dkist_processing_core.process import forks

BUSY_SECONDS = 2.0
"""How long a call waits by default while another process holds the file."""
_PATIENCES_OF_A_READ = 5
# For how long after a wait a connection queues for the journal before its first attempt. A process that publishes in a
# loop leaves the journal free only for moments, so that waiting processes would hardly ever find it free.
_CONTENDED_SECONDS = 1.0
_Result = TypeVar("_Result")


class JournalFile:
    """An open SQLite file. Every failure is a `JournalError` that names the file."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        connections: Connections,
        *,
        patience: float = BUSY_SECONDS,
    ) -> None:
        """Store an open connection, which is one of `connections`; `connect` opens a file by its path."""
        self.path = path
        self._connection = connection
        # A byte that is not valid UTF-8 spoils one text. It must not hide all the rows around it.
        connection.text_factory = _text
        self._connections = connections
        # The garbage collector must check the descriptors as well before it closes them.
        self._closing = forks.finalize(self, functools.partial(_close, connections, connection))
        self._closing.atexit = False
        self._is_synced = True
        self.patience = patience
        """How many seconds each call waits while another process holds the file."""
        self.waited = 0.0
        """How many seconds all calls together have waited for other processes."""
        self._waits_until = math.inf
        self._acts_since = 0.0
        self._contended_until = 0.0
        self.file = _file_at(path)
        """The identity of the open file: device and inode number. Another file of the same name has another one."""
        close_before_use_in_forks(self)

    @classmethod
    def connect(cls, path: Path, uri: str | None = None, *, make: bool = False, patience: float = BUSY_SECONDS) -> Self:
        """Connect to the file at `path` without reading it: its content may be anything."""
        watch_forks()
        with explained(path), in_use, OpenedFileCheck(path, make=make) as file:
            close_inherited()
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

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return all rows that a query finds."""
        return self._patiently(lambda: self._connection.execute(query, values).fetchall())

    def write(self, statement: str, *values: object) -> None:
        """Execute one statement in a separate transaction."""
        self.transact(lambda connection: connection.execute(statement, values))

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
                # A commit fails on a full disk, for example. After some errors SQLite has already rolled back.
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
            return result

        return self._patiently(transaction, queues=True)

    def limit_waits(self, seconds: float = math.inf) -> None:
        """Limit the total time that all calls from now on wait for other processes to `seconds`."""
        self._waits_until = self.waited + seconds

    def _patiently(self, action: Callable[[], _Result], *, queues: bool = False) -> _Result:
        """
        Run `action`, and retry it while another process holds the file, until the patience has passed.

        With `queues` this waits for its turn before the first attempt, if there were other processes a moment ago.
        """
        now = time.monotonic()
        until = now + max(0.0, min(self.patience, self._waits_until - self.waited))
        wait: Wait | None = None
        try:
            with explained(self.path):
                if queues and now < min(self._contended_until, until):
                    wait = Wait(self.path, until, self._is_free)
                    self._wait_for_turn(wait, now, until)
                while True:
                    began = self._acts_since = time.monotonic()
                    try:
                        with in_use:
                            close_inherited()
                            self._connections.check()
                            return action()
                    except sqlite3.OperationalError as error:
                        failed = time.monotonic()
                        if not is_busy(error) or failed >= until:
                            raise
                    self._contended_until = failed + _CONTENDED_SECONDS
                    wait = wait or Wait(self.path, until, self._is_free)
                    wait.before_retry(failed, attempt=failed - began)
                    # A delay by the scheduler after `until` does not count.
                    self.waited += min(until, time.monotonic()) - failed
        finally:
            if wait is not None:
                wait.end()

    def _wait_for_turn(self, wait: Wait, now: float, until: float) -> None:
        if wait.for_turn(until - now):
            # No other process was before this one.
            return
        ended = time.monotonic()
        self.waited += min(until, ended) - now
        # If the first process of the queue does not use the free journal (it may be stopped), queueing is useless.
        self._contended_until = ended + _CONTENDED_SECONDS if wait.has_turn else 0.0

    def _is_free(self) -> bool:
        with in_use:
            return self._connections.is_free

    def is_endless(self) -> bool:
        """Return True if the current read takes far longer than any read of a valid journal."""
        return time.monotonic() > self._acts_since + _PATIENCES_OF_A_READ * self.patience

    def sync(self, *, fully: bool) -> None:
        """Set whether each commit waits for the disk; see `Journal.open`."""
        self._is_synced = fully
        self._patiently(lambda: self._connection.execute(f"PRAGMA synchronous = {'FULL' if fully else 'NORMAL'}"))

    @contextlib.contextmanager
    def synced(self, *, fully: bool) -> Iterator[None]:
        """Set whether each commit waits for the disk, until the context ends."""
        before = self._is_synced
        self.sync(fully=fully)
        try:
            yield
        finally:
            self.sync(fully=before)

    @property
    def is_there(self) -> bool:
        """Whether the open file and its log are still at their paths; False if they were deleted or replaced."""
        with in_use:
            if self._connections.are_at_their_paths:
                return True
            if self.file == _file_at(self.path):
                return not self._connections.has_lost_log
            return not self._connections.is_removed and not self._is_renamed

    @property
    def is_nameless(self) -> bool:
        """Whether the open file was removed; False if it was only renamed, or if another file is at its path."""
        with in_use:
            return self._connections.is_nameless

    @property
    def _is_renamed(self) -> bool:
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
        """Close the file."""
        if self._closing.detach() is not None:
            _close(self._connections, self._connection)

    def close_inherited(self) -> None:
        """Close the copy of the open file that a fork has; its parent may have ended since."""
        if self._closing.alive and self._connections.has_other_log:
            self._connections.leave_open()
        self.close()

    def discard(self) -> None:
        """Close a file that is about to be removed, without waiting for the disk."""
        self._patiently(lambda: self._connection.execute("PRAGMA synchronous = OFF"))
        self.close()

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _close(connections: Connections, connection: sqlite3.Connection) -> None:
    with in_use:
        connections.close(connection)


def _file_at(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _text(encoded: bytes) -> str:
    return encoded.decode(errors="replace")
