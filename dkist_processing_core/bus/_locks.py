"""
Kernel locks beside the journals, and what keeps SQLite and those locks whole over a fork.

Not here: what is locked (_journal, drain).
"""

import contextlib
import fcntl
import functools
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dkist_processing_core.descriptors import Held, move_up
from dkist_processing_core.errors import JournalError
from dkist_processing_core.trusted import open_file


class FileLock:
    """A kernel lock on a file beside a journal, which ends with the process that holds it, however that ends."""

    def __init__(self, path: Path) -> None:
        """Name the lock's file; nothing is opened yet."""
        self.path = path
        self._descriptor: int | None = None
        self._held = Held()

    @property
    def is_held(self) -> bool:
        """Whether the lock is held: it is gone where other code of this process has closed its descriptor."""
        if self._descriptor is not None and not self._held.are_ours:
            self._descriptor = None
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it, and say whether it is held now."""
        if self.is_held:
            return True
        with explained(self.path):
            descriptor = move_up(open_file(self.path, os.O_CREAT | os.O_RDWR))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor, self._held = descriptor, Held([descriptor])
        watch_forks()
        _held.add(self)
        return True

    def release(self) -> None:
        """Let another take it."""
        if self.is_held and self._descriptor is not None:
            # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.abandon()

    def holder(self) -> int | None:
        """Return the process that holds the lock, by /proc/locks (proc_locks(5)); None for nobody, or nobody seen."""
        try:
            found = self.path.stat()
            lines = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return None
        # The columns: number, kind, mode, access, process, device:inode, range. A waiting one has an arrow before them.
        held = [line.split() for line in lines if " -> " not in line]
        alike = {row[5]: int(row[4]) for row in held if row[1] == "FLOCK" and row[5].endswith(f":{found.st_ino}")}
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        # Some file systems, as overlays, say another device here: then the file's number has to do.
        return alike.get(f"{device}:{found.st_ino}", next(iter(alike.values()), None))

    def remove(self) -> None:
        """Remove the file of a lock that is held, and let it go: whoever opened it before finds nothing behind it."""
        self.path.unlink(missing_ok=True)
        self.release()

    def abandon(self) -> None:
        """Forget the lock without unlocking it: what a fork does with its parent's."""
        if self.is_held and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()
# Held while a thread is inside SQLite, and over every fork: a child would inherit SQLite's locks as they are at that
# instant, held by a thread that it has not got, for ever. Reentrant, so that no fork can wait for its own thread.
in_use = threading.RLock()


class _Connected(Protocol):
    def close(self) -> None: ...


_connected: "weakref.WeakSet[_Connected]" = weakref.WeakSet()


def close_in_forks(connected: _Connected) -> None:
    """
    Have forks close their copies of an SQLite connection, which is idle whenever a process forks.

    SQLite counts its locks per process, and a fork inherits the counts without the locks: what the fork opened itself
    would be taken for locked already, and its parent would remove the log from under it.
    """
    _connected.add(connected)


def _begin_in_child() -> None:
    for connected in list(_connected):
        connected.close()
    in_use.release()
    for lock in list(_held):
        lock.abandon()


@functools.cache
def watch_forks() -> None:
    """
    Have forks wait for SQLite, and close their copies of the locks.

    A kernel lock goes with its last descriptor, and a child may live longer than the process that took it.
    """
    os.register_at_fork(before=in_use.acquire, after_in_parent=in_use.release, after_in_child=_begin_in_child)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Make what the system or SQLite says of a file a `JournalError` that names it."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        msg = f"the journal {path} cannot be used: {error}"
        raise JournalError(msg) from error
