"""
The queue of the processes that wait for a journal while another one writes to it.

SQLite has none: each process tries again and again, chance decides which one is next, and what hundreds spend on trying
is missing for the one that writes. The kernel has one for its locks (flock(2)), but no limit to the wait: so a thread
waits there. The queue gives the order alone. What keeps two processes from writing at once is SQLite's lock: also for
releases that know no queue, and for a process that does not wait for a first one that is stopped (SIGSTOP).
Not here: for how long a process waits (_journal).
"""

import _thread
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.bus._locks import close_in_forks, in_use, watch_forks
from dkist_processing_core.descriptors import Held, move_up
from dkist_processing_core.trusted import Identity, open_file

_SLICE_SECONDS = 0.1
# The first of the queue tries more often than that: a journal that is free each time is free for want of a try.
_BETWEEN_LOOKS_SECONDS = 0.03
_LOOKS = 3


class Place:
    """A place in the queue for one journal, from the first `wait` until `leave`."""

    def __init__(self, path: Path) -> None:
        """Name the journal; nothing is opened yet."""
        # Of its files the one that SQLite keeps no lock on: closing another descriptor would give that up (fcntl(2)).
        self._log = f"{path}-wal"
        self._turn: _Turn | None = None

    @property
    def is_taken(self) -> bool:
        """Whether this process is in the queue, or has waited in it."""
        return self._turn is not None

    def wait(self, seconds: float, is_free: Callable[[], bool] = lambda: False) -> bool:
        """
        Wait to be the first, for at most so many seconds; return False without a wait where there is none to do.

        It ends earlier where the journal `is_free`, again and again: then the first one does not take it.
        """
        if self._turn is None:
            self._turn = _turn_for(self._log)
        elif self._turn.is_first.is_set():
            return False
        return self._turn is not None and self._turn.wait(seconds, is_free)

    def leave(self) -> None:
        """Let the next process be the first; where this one has not been it yet, as soon as it is."""
        if self._turn is not None:
            self._turn.leave()


class _Turn:
    """A descriptor of a log that has, or waits for, the lock that is the head of the queue."""

    def __init__(self, log: str) -> None:
        """Open the log, and ask for the lock."""
        self.is_first = threading.Event()
        self.is_left = False
        self._held = Held([move_up(open_file(log, os.O_RDONLY, sets_mode=False))])
        close_in_forks(self)
        (self._number,) = self._held.identities
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_first.set()
        except BlockingIOError:
            self._stand_in_thread()
        except OSError:
            # A file system without such locks.
            self.close()
            raise

    def _stand_in_thread(self) -> None:
        try:
            _thread.start_new_thread(self._stand, ())
        except RuntimeError:
            self.close()
            raise

    @property
    def log(self) -> Identity | None:
        """Which file it is; None where it is closed."""
        return self._held.identities.get(self._number)

    def _stand(self) -> None:
        # Where the author's code has closed it there is nothing to wait for.
        with contextlib.suppress(OSError):
            fcntl.flock(self._number, fcntl.LOCK_EX)
        with in_use:
            self.is_first.set()
            if self.is_left:
                self._let_go()

    def wait(self, seconds: float, is_free: Callable[[], bool]) -> bool:
        """Wait as `Place.wait` does."""
        until, pause, looks = time.monotonic() + seconds, _SLICE_SECONDS, 0
        while not self.is_first.wait(max(0.0, min(pause, until - time.monotonic()))):
            looks = looks + 1 if is_free() else 0
            if looks == _LOOKS or time.monotonic() >= until:
                break
            # Less and less often: what hundreds spend on looking is missing as well.
            pause = _BETWEEN_LOOKS_SECONDS if looks else 2 * max(pause, _SLICE_SECONDS)
        return True

    def leave(self) -> None:
        """Give the lock back, or leave the wait for it to the next call of this process."""
        with in_use:
            if self.is_first.is_set():
                self._let_go()
            elif self.log is not None:
                self.is_left = True
                _left.append(self)

    def _let_go(self) -> None:
        # Unlocked, not only closed: a fork of this process may hold a copy of the descriptor.
        with contextlib.suppress(OSError):
            if self._is_ours:
                fcntl.flock(self._number, fcntl.LOCK_UN)
        self.close()

    @property
    def _is_ours(self) -> bool:
        """Whether the number is still what was opened here: SQLite may have got it, for the same file."""
        with contextlib.suppress(OSError):
            # None of SQLite's is nonblocking, as each of `open_file` is.
            is_apart = fcntl.fcntl(self._number, fcntl.F_GETFL) & os.O_NONBLOCK
            return bool(is_apart) and self.log is not None and self._held.are_ours
        return False

    def close(self) -> None:
        """Close the descriptor, as a fork does with its copy: the place stays its parent's."""
        # At once: the next file that SQLite opens may get the number.
        with in_use, contextlib.suppress(OSError):
            is_ours, self._held = self._is_ours, Held()
            if self in _left:
                _left.remove(self)
            if is_ours:
                os.close(self._number)


# Behind a process that is stopped each call would leave one more thread and descriptor: the next one takes its place.
_left: list[_Turn] = []


def _turn_for(log: str) -> _Turn | None:
    """Return a turn that a call of this process has left, or a new one; None where there is no queue."""
    watch_forks()
    # Over all of it: a fork in between would keep a copy that it knows nothing of.
    # There may be no file yet, one without such locks, or no thread to be had.
    with in_use, contextlib.suppress(OSError, RuntimeError):
        found = os.stat(log)  # noqa: PTH116 - pathlib is slower
        for turn in _left:
            if turn.log == (found.st_dev, found.st_ino):
                _left.remove(turn)
                turn.is_left = False
                return turn
        return _Turn(log)
    return None
