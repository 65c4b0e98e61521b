"""
Kernel locks on files in the journals' folder, and the protection of SQLite and those locks at a fork.

Not here: the code that the locks protect (_journal, delivery.drainer).
"""

import contextlib
import fcntl
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.aside import name_aside
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.process.descriptors import HeldDescriptors, move_up
from dkist_processing_core.process.trusted_files import ClosedAfterwards, open_file

_PAUSE_SECONDS = 0.005
_KIND = "lock's file"
logger = logging.getLogger(__name__)


class FileLock:
    """A kernel lock on a file in a journal's folder; it is released when its process ends, even if that is killed."""

    def __init__(self, path: Path) -> None:
        """Store the path of the lock's file. No file is opened."""
        self.path = path
        self._descriptor: int | None = None
        self._held = HeldDescriptors()

    @property
    def is_held(self) -> bool:
        """Whether the lock is held: it is lost if other code of this process has closed its descriptor."""
        if self._descriptor is not None and not self._held.are_ours:
            self._descriptor = None
        return self._descriptor is not None

    @property
    def descriptor(self) -> int | None:
        """The descriptor of a held lock, which is released when the last copy is closed; None if it is not held."""
        return self._descriptor if self.is_held else None

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and return True if this process holds it now."""
        if self.is_held:
            return True
        watch_forks()
        # No fork may come in between: the child would keep the lock until it ends.
        with in_use:
            if self.is_held:
                # Another thread has acquired it in between. Its own attempt would find the file locked.
                return True
            while True:
                with explained(self.path, _KIND):
                    descriptor = move_up(self._open())
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    return False
                if os.fstat(descriptor).st_nlink:
                    break
                # The holder has removed the file in between: a lock on it would exclude no other process.
                os.close(descriptor)
            self._descriptor, self._held = descriptor, HeldDescriptors([descriptor])
            _held.add(self)
        return True

    def _open(self) -> int:
        if self.path.is_dir() and not self.path.is_symlink():
            # No process can lock a folder here, so it would block every process.
            aside = name_aside(self.path)
            self.path.rename(aside)
            logger.warning("%s is a folder where a lock's file has to be; it is kept as %s", self.path, aside)
        return open_file(self.path, os.O_CREAT | os.O_RDWR)

    def release(self) -> None:
        """Release the lock."""
        if self.is_held and self._descriptor is not None:
            # Unlock before closing: a fork of this process may hold a copy of the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.abandon()

    @property
    def problem(self) -> str | None:
        """The reason why this user cannot acquire the lock, even if it is free; None if there is none."""
        if not os.path.lexists(self.path) or (self.path.is_dir() and not self.path.is_symlink()):
            # The next process that takes the lock creates or replaces the file.
            return None
        try:
            with explained(self.path, _KIND):
                os.close(open_file(self.path, os.O_RDWR, sets_mode=False))
        except JournalError as error:
            return str(error)
        return None

    @property
    def is_free(self) -> bool:
        """
        Whether no process holds the lock, in any container on this host.

        Raises:
            JournalError: The lock's file cannot be opened.
        """
        with explained(self.path, _KIND):
            descriptor = open_file(self.path, os.O_RDONLY, sets_mode=False)
        with ClosedAfterwards(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def holder(self) -> int | None:
        """Return the id of the process that holds the lock, from /proc/locks (proc_locks(5)); None if none is found."""
        try:
            found = self.path.stat()
            lines = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return None
        # The columns: number, kind, mode, access, process, device:inode, range. The line of a waiter has an arrow.
        held = [line.split() for line in lines if " -> " not in line]
        alike = {row[5]: int(row[4]) for row in held if row[1] == "FLOCK" and row[5].endswith(f":{found.st_ino}")}
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        # Some file systems, such as overlays, show another device here: then only the inode number is compared.
        return alike.get(f"{device}:{found.st_ino}", next(iter(alike.values()), None))

    def remove(self) -> None:
        """Remove the file of a held lock, then release it: a process that opened it before finds the file removed."""
        self.path.unlink(missing_ok=True)
        self.release()

    def abandon(self) -> None:
        """Close the descriptor without unlocking: a fork does this with the locks of its parent."""
        with in_use:
            if self.is_held and self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class _Closable(Protocol):
    def close(self) -> None: ...


class _Inherited(Protocol):
    def close_inherited(self) -> None: ...


# Held while a thread is inside a journal's SQLite, and during every fork: otherwise a fork might inherit a connection
# in the middle of a statement. It is reentrant, so that a fork never waits for its own thread. As it is no Python code,
# a signal handler that raises cannot come between its steps.
in_use = threading.RLock()
_descriptors: "weakref.WeakSet[_Closable]" = weakref.WeakSet()
_connections: "weakref.WeakSet[_Inherited]" = weakref.WeakSet()
# The connections of the parent process that this fork has not closed yet.
_inherited: list[_Inherited] = []


def close_in_forks(descriptor: _Closable) -> None:
    """Register an object that has a descriptor, so that forks close their copies of it."""
    _descriptors.add(descriptor)


def close_before_use_in_forks(connection: _Inherited) -> None:
    """
    Register an SQLite connection, so that a fork closes its copy before it uses a journal.

    SQLite counts its locks per process, and a fork inherits the counts without the locks. SQLite would treat a file
    that the fork opens as locked already, and the parent would remove the log while the fork uses it. The fork itself
    calls nothing of SQLite: another thread may have been inside it, with a database that is no journal, and its
    internal locks would stay locked for ever.
    """
    _connections.add(connection)


def close_inherited() -> None:
    """Close the connections of the parent process, in a fork that now uses a journal; callers hold `in_use`."""
    while _inherited:
        _inherited.pop().close_inherited()


def _begin_in_child() -> None:
    for descriptor in list(_descriptors):
        descriptor.close()
    for lock in list(_held):
        lock.abandon()
    _inherited[:] = _connections
    in_use.release()


@functools.cache
def watch_forks() -> None:
    """
    Register fork handlers: a fork waits for the journals, and its child closes its copies of the locks.

    A kernel lock ends when its last descriptor is closed, and a child may live longer than the process that locked it.
    """
    os.register_at_fork(before=in_use.acquire, after_in_parent=in_use.release, after_in_child=_begin_in_child)


@contextlib.contextmanager
def folder_lock(folder: Path, *, exclusive: bool = False, seconds: float) -> Iterator[None]:
    """
    Hold a kernel lock on a folder: shared while a file in it is opened, exclusive while one is replaced.

    The lock is on the folder itself, so that reading a journal creates no file. A folder that this user may not read
    is not locked.

    Raises:
        TimeoutError: Other processes hold the lock for longer than `seconds` seconds.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield
        return
    held = HeldDescriptors([descriptor])
    try:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    msg = f"another process is replacing a file in {folder}"
                    raise TimeoutError(msg) from None
                time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        # Unlock before closing: a fork of this process may hold a copy of the descriptor.
        with contextlib.suppress(OSError):
            if held.are_ours:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)
