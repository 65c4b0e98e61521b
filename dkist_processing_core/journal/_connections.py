"""
The descriptors that SQLite holds for each journal in this process, and the recovery when the author's code closes some.

SQLite uses its descriptors by number while a connection is open. If the author's code closes one and opens another file
under the same number, SQLite would write the journal's pages into that file. SQLite also counts its locks per process,
and the kernel drops all locks on a file when any descriptor of the file is closed. Therefore all connections to a file
are abandoned together. If the closed numbers are free, they are opened again just long enough to close the connections;
the journal can then be opened again. If another file now uses a number, the connections stay open until the process
ends, and this process does not use that journal any more. Not here: the queries on a connection (_journal).
"""

import atexit
import contextlib
import fcntl
import functools
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.errors import JournalError, JournalLostError
from dkist_processing_core.journal._open_files import OpenFiles
from dkist_processing_core.journal.locks import in_use
from dkist_processing_core.process.descriptors import HeldDescriptors, is_high, low_numbers_taken, open_numbers
from dkist_processing_core.process.trusted_files import Identity, close_if, identity_of

_LOG = "-wal"
_SHARED_MEMORY = "-shm"
_SUFFIXES = ("", _LOG, _SHARED_MEMORY)
_NOT_SQLITES = os.O_PATH | os.O_NONBLOCK
# SQLite's write lock is one byte of its shared memory file (https://sqlite.org/walformat.html#wal_locks).
_FLOCK, _WRITE_LOCK_AT = "hhqqi4x", 120


class Connections:
    """All connections of this process to one journal's file. Callers must hold `in_use` during each call."""

    def __init__(self, path: Path) -> None:
        """Store the path. No file is opened."""
        self._path = path
        self._connections: list[sqlite3.Connection] = []
        self._names: dict[Identity, str] = {}
        self._held = HeldDescriptors()
        self._open_files = OpenFiles(path, {})
        self.is_lost = False
        """Whether other code of this process has closed some of the descriptors."""
        self._root = _identity_at(Path("/"))

    @classmethod
    def to(cls, path: Path) -> "Connections":
        """
        Return the connections of this process to the file at `path`.

        Raises:
            JournalError: This process cannot use that file any more.
        """
        _check_at_exit()
        file = _identity_at(path) or (0, 0)
        if file in _to_files:
            with contextlib.suppress(JournalLostError):
                _to_files[file].check()
        if file in _lost:
            msg = f"the journal {path} can no longer be used by this process: other code has closed its descriptors"
            raise JournalError(msg)
        return _to_files.get(file) or cls(path)

    @classmethod
    def without_log(cls, path: Path) -> sqlite3.Connection | None:
        """Return a connection to the file at `path` if its side files were removed: only it can read their data."""
        found = _to_files.get(_identity_at(path) or (0, 0))
        return found.first if found is not None and found.has_lost_log else None

    @property
    def first(self) -> sqlite3.Connection | None:
        """The connection that was opened first; None if all are closed."""
        return self._connections[0] if self._connections else None

    @property
    def are_at_their_paths(self) -> bool:
        """Whether each open file is still at its path (the usual case); False if that cannot be checked."""
        return self._open_files.are_at_their_paths

    @property
    def has_lost_log(self) -> bool:
        """Whether a side file of the open file was deleted, or another file is at its path."""
        for number, identity in self._held.identities.items():
            if identity is not None and (suffix := self._names.get(identity)):
                with contextlib.suppress(OSError):
                    if not os.fstat(number).st_nlink:
                        return True
                at_path = _identity_at(self._path, suffix)
                if at_path is not None and self._names.get(at_path) != suffix:
                    return True
        return False

    @property
    def has_other_log(self) -> bool:
        """Whether another log is at the path of this file's log, which SQLite would remove with the last connection."""
        at_path = _identity_at(self._path, _LOG)
        return at_path is not None and self._names.get(at_path) != _LOG

    def open(self, database: str, *, uri: bool = False) -> sqlite3.Connection:
        """Return a new connection; the caller must run the first action on it by `use_first`."""
        with low_numbers_taken():
            # The class itself: an instrumentor replaces `sqlite3.connect`, and would make a span of each statement.
            connection = sqlite3.Connection(database, uri=uri, timeout=0, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        self._record_descriptors()
        return connection

    def use_first(self, action: Callable[[], None]) -> None:
        """Run the first action on a new connection, after which it has opened all the files that it keeps open."""
        with low_numbers_taken():
            action()
        # Not after a failure: it may leave descriptors that SQLite closes as soon as a lock of this process ends.
        self._record_descriptors()

    def _record_descriptors(self) -> None:
        """Record the descriptors that are open now."""
        names = {identity: suffix for suffix in _SUFFIXES if (identity := _identity_at(self._path, suffix))}
        file = next((identity for identity, suffix in names.items() if not suffix), None)
        if not self._names and file is not None:
            _to_files[file] = self
            self._names = names
        elif file in self._names:
            # If another file is now at the path, its connections are not among these.
            self._names |= names
        numbers = [number for number in open_numbers() if self._is_used(number)]
        # SQLite reads and writes only at stated offsets. A low number may be the author's, who has opened the journal.
        self._held = HeldDescriptors(numbers, is_marked=is_high)
        for number in numbers:
            if self._held.identities[number] not in self._names:
                # Another thread has opened another file under this number in between: SQLite must not use it any more.
                self._held.identities[number] = None
        held = {each: self._names[each] for each in self._held.identities.values() if each in self._names}
        self._open_files = OpenFiles(self._path, held)

    def _is_used(self, number: int) -> bool:
        """Return True if SQLite has opened one of these files as `number`; `open_file` opens nonblocking instead."""
        try:
            return identity_of(number) in self._names and not fcntl.fcntl(number, fcntl.F_GETFL) & _NOT_SQLITES
        except OSError:
            return False

    def check(self) -> None:
        """
        Check that the descriptors still refer to the files that were opened.

        Raises:
            JournalLostError: They do not; then all connections to the file are abandoned.
        """
        if not self.is_lost and not self._held.are_ours:
            self._abandon()
        if self.is_lost:
            msg = f"other code of this process has closed descriptors of the journal {self._path}"
            raise JournalLostError(msg)

    @property
    def is_nameless(self) -> bool:
        """Whether the file has no name any more: only processes that have it open can read it."""
        for number, identity in self._held.identities.items():
            if self._is_file(identity):
                with contextlib.suppress(OSError):
                    if not os.fstat(number).st_nlink:
                        return True
        return False

    @property
    def is_removed(self) -> bool:
        """
        Whether the file has no name any more, or another file is at its path.

        False if that cannot be checked: a task may change its user or its root directory while the file still exists.
        """
        if self.is_nameless:
            return True
        at_path = _identity_at(self._path)
        return at_path is not None and self._names.get(at_path) != "" and _identity_at(Path("/")) == self._root

    @property
    def is_free(self) -> bool:
        """Whether no other process writes to the file at the moment; False if that cannot be checked."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _WRITE_LOCK_AT, 1, 0)
        with contextlib.suppress(OSError, struct.error):
            for number, identity in self._held.identities.items():
                if identity is not None and self._names.get(identity) == _SHARED_MEMORY:
                    found = fcntl.fcntl(number, fcntl.F_GETLK, asked)
                    return bool(struct.unpack(_FLOCK, found)[0] == fcntl.F_UNLCK)
        return False

    def read(self, size: int, at: int) -> bytes:
        """
        Return `size` bytes of the file from offset `at`, read without SQLite; b"" if the disk cannot read them.

        This uses SQLite's own descriptor: closing another descriptor of the same file would drop SQLite's locks on it.
        """
        self.check()
        number = next(number for number, identity in self._held.identities.items() if self._is_file(identity))
        with contextlib.suppress(OSError):
            return os.pread(number, size, at)
        return b""

    def _is_file(self, identity: Identity | None) -> bool:
        return identity is not None and self._names.get(identity) == ""

    def close(self, connection: sqlite3.Connection) -> None:
        """Close one connection, unless the connections are lost."""
        with contextlib.suppress(JournalLostError):
            self.check()
            if connection in self._connections:
                self._connections.remove(connection)
                connection.close()
                self._record_descriptors()
                if not self._connections:
                    self._forget()

    def _abandon(self) -> None:
        self.is_lost = True
        restored: list[int] = []
        if not all(self._is_restored(number, restored) for number in self._held.identities):
            self.leave_open()
            return
        connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        for number in restored:
            # A number that no connection used, as when the author's code had opened the file itself.
            close_if(number, self._held.identities[number])
        self._forget()

    def leave_open(self) -> None:
        """Leave all connections open until this process ends, which does not use the file any more."""
        self.is_lost = True
        _lost.update(self._names)
        connections, self._connections = self._connections, []
        for connection in connections:
            _leave_open(connection)

    def _is_restored(self, number: int, restored: list[int]) -> bool:
        """Open the original file under its number again; return True if the number refers to that file."""
        wanted = self._held.identities[number]
        if wanted is not None and identity_of(number) is None:
            with contextlib.suppress(OSError):
                opened = os.open(f"{self._path}{self._names[wanted]}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                restored.append(opened if opened == number else fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, number))
                if opened != number:
                    close_if(opened, wanted)
                if restored[-1] != number:
                    close_if(restored.pop(), wanted)
        return identity_of(number) == wanted

    def _forget(self) -> None:
        for identity in self._names:
            if _to_files.get(identity) is self:
                del _to_files[identity]


_to_files: dict[Identity, Connections] = {}
# Files for which SQLite still uses descriptor numbers that now refer to other files.
_lost: set[Identity] = set()


def _identity_at(path: Path, suffix: str = "") -> Identity | None:
    try:
        found = os.stat(f"{path}{suffix}")  # noqa: PTH116 - pathlib is slower
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _leave_open(connection: sqlite3.Connection) -> None:
    """Prevent the garbage collector and the interpreter's exit from closing a connection: keep a reference to it."""
    import ctypes  # noqa: PLC0415 - for this alone, which is rare

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


@functools.cache
def _check_at_exit() -> None:
    """Register a check, so that the interpreter's exit closes no connection whose numbers refer to other files."""
    atexit.register(_check_all)


def _check_all() -> None:
    with in_use:
        for connections in list(_to_files.values()):
            with contextlib.suppress(JournalLostError):
                connections.check()
