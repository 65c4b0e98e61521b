"""
The queue of the processes that wait for a journal while another one writes to it.

SQLite has none: each process tries again and again, chance decides which one is next, and what hundreds spend on trying
is missing for the one that writes. The kernel has one for its locks (flock(2)), but no limit to the wait: so a thread
waits there. The queue gives the order alone. What keeps two processes from writing at once is SQLite's lock: also for
releases that know no queue, and for a process that has waited in vain behind one that is stopped (SIGSTOP).
Not here: for how long a process waits (_journal).
"""

import _thread
import contextlib
import fcntl
import os
from pathlib import Path

from dkist_processing_core.bus._locks import close_in_forks, in_use, watch_forks
from dkist_processing_core.descriptors import Held, move_up
from dkist_processing_core.trusted import open_file

apart: set[int] = set()
"""The numbers by which places have a log open; changed while `in_use` is held. None of them is a connection's."""


class Place:
    """A place in the queue for one journal, from the first `wait` until `leave`."""

    def __init__(self, path: Path) -> None:
        """Name the journal; nothing is opened yet."""
        self._path = path
        self._held = Held()
        self._is_over: _thread.LockType | None = None

    @property
    def is_taken(self) -> bool:
        """Whether this process is in the queue, or has waited in it."""
        return self._is_over is not None

    def wait(self, seconds: float) -> bool:
        """Wait to be the first, for at most so many seconds; return False without a wait where there is none to do."""
        if self._is_over is not None or not self._open():
            return False
        (descriptor,) = self._held.identities
        is_over = _thread.allocate_lock()
        is_over.acquire()
        self._is_over = is_over
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            is_first = _thread.allocate_lock()
            is_first.acquire()
            is_over.release()
            _thread.start_new_thread(self._stand, (descriptor, is_over, is_first))
        except (OSError, RuntimeError):
            # A file system without such locks, or no thread to be had.
            self._is_over = None
            self.close()
            return False
        is_first.acquire(timeout=seconds)
        return True

    def _open(self) -> bool:
        watch_forks()
        # Of its files the one that SQLite keeps no lock on: closing another descriptor would give that up (fcntl(2)).
        log = f"{self._path}-wal"
        # Over all of it: a fork in between would keep a copy that it knows nothing of.
        with in_use, contextlib.suppress(OSError):
            self._held = Held([move_up(open_file(log, os.O_RDONLY, sets_mode=False))])
            apart.update(self._held.identities)
            close_in_forks(self)
            return True
        return False

    def _stand(self, descriptor: int, is_over: "_thread.LockType", is_first: "_thread.LockType") -> None:
        # Where the author's code has closed it there is nothing to wait for.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_over.acquire(blocking=False):
            is_first.release()
        else:
            self._let_go()

    def leave(self) -> None:
        """Let the next process be the first; where this one has not been it yet, as soon as it is."""
        # Of this and the thread the second one lets go.
        if self._is_over is not None and not self._is_over.acquire(blocking=False):
            self._let_go()

    def _let_go(self) -> None:
        # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
        with contextlib.suppress(OSError):
            for number in self._held.identities if self._held.are_ours else ():
                fcntl.flock(number, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close the descriptor, as a fork does with its copy: the place stays its parent's."""
        # At once: the next file that SQLite opens may get the number.
        with in_use, contextlib.suppress(OSError):
            held, self._held = self._held, Held()
            apart.difference_update(held.identities)
            for number in held.identities if held.are_ours else ():
                os.close(number)
