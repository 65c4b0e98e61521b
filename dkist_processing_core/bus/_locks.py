"""
Kernel locks beside the journals, and what keeps SQLite and those locks whole over a fork.

Not here: what is locked (_journal, drain).
"""

import contextlib
import fcntl
import functools
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dkist_processing_core.bus._faults import explained
from dkist_processing_core.descriptors import Held, move_up
from dkist_processing_core.errors import JournalError
from dkist_processing_core.trusted import open_file

_PAUSE_SECONDS = 0.005
_KIND = "lock's file"
logger = logging.getLogger(__name__)


class FileLock:
    """A kernel lock on a file beside a journal, which ends with the process that holds it, however that ends."""

    def __init__(self, path: Path) -> None:
        """Name the lock's file; nothing is opened yet."""
        self.path = path
        self._descriptor: int | None = None
        self._held = Held()

    @property
    def is_held(self) -> bool:
        """Whether the lock is held: it is lost where other code of this process has closed its descriptor."""
        if self._descriptor is not None and not self._held.are_ours:
            self._descriptor = None
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it, and say whether it is held now."""
        if self.is_held:
            return True
        watch_forks()
        # Over all of it: a fork in between would keep the lock for as long as it lives.
        with in_use:
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
                # Removed by its holder in between: a lock on it would keep no other process away.
                os.close(descriptor)
            self._descriptor, self._held = descriptor, Held([descriptor])
            _held.add(self)
        return True

    def _open(self) -> int:
        if self.path.is_dir() and not self.path.is_symlink():
            # No process can hold a lock on it, and it would keep every process from its work.
            aside = name_aside(self.path)
            self.path.rename(aside)
            logger.warning("%s is a folder where a lock's file has to be; it is kept as %s", self.path, aside)
        return open_file(self.path, os.O_CREAT | os.O_RDWR)

    def release(self) -> None:
        """Let another take it."""
        if self.is_held and self._descriptor is not None:
            # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.abandon()

    @property
    def problem(self) -> str | None:
        """Why this user cannot take the lock, whether or not it is free; None where nothing prevents it."""
        if not os.path.lexists(self.path) or (self.path.is_dir() and not self.path.is_symlink()):
            # Made, or replaced, by the next process that takes it.
            return None
        try:
            with explained(self.path, _KIND):
                os.close(open_file(self.path, os.O_RDWR, sets_mode=False))
        except JournalError as error:
            return str(error)
        return None

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
        with in_use:
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


def name_aside(path: Path) -> Path:
    """Return a free name beside `path` for what has to give way to a new file."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    taken = (path.with_name(f"{name}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path.with_name(name)], taken) if not os.path.lexists(each))


@contextlib.contextmanager
def folder_lock(folder: Path, *, exclusive: bool = False, seconds: float) -> Iterator[None]:
    """
    Hold a kernel lock on a folder: shared while a file in it is opened, exclusive while one is replaced.

    On the folder itself, so that looking makes no file; a folder that this user may not read is not locked.

    Raises
    ------
    TimeoutError
        where other processes hold it for longer than so many `seconds`.

    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield
        return
    held = Held([descriptor])
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
        # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
        with contextlib.suppress(OSError):
            if held.are_ours:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)
