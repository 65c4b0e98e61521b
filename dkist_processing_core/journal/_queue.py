"""
The queue of the processes that wait for a journal while another one writes to it.

SQLite has no queue: each process retries, chance decides which one is next, and the attempts of hundreds of processes
slow down the one that writes. The kernel has a queue for its locks (flock(2)), but no time limit for the wait;
therefore a thread waits there. The queue only gives the order. SQLite's lock prevents two processes from writing at
once. It does so also for releases without the queue, and for a process that does not wait because the first process of
the queue is stopped (SIGSTOP). Not here: how long a process waits in all (_file).
"""

import _thread
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.journal.locks import close_in_forks, in_use, watch_forks
from dkist_processing_core.process.descriptors import HeldDescriptors, move_up
from dkist_processing_core.process.own_random import own_random
from dkist_processing_core.process.trusted_files import Identity, open_file

_SLICE_SECONDS = 0.1
# The first process of the queue retries more often than this. So a journal that is found free each time is free because
# that process does not try.
_BETWEEN_LOOKS_SECONDS = 0.03
_LOOKS = 3
_SHORTEST_PAUSE_SECONDS = 0.0002
_GROWTH_OF_PAUSE = 1.25
_LONGEST_PAUSE_SECONDS = 0.01
# At most a tenth of the time is spent on attempts: the attempts of many processes slow down the one they wait for.
_PAUSES_FOR_A_TRY = 10
_LONGEST_COSTLY_PAUSE_SECONDS = 0.1


class Wait:
    """The wait of one call for a journal that another process holds, from the first failed attempt until `end`."""

    def __init__(self, path: Path, until: float, is_free: Callable[[], bool]) -> None:
        """Store the journal's path, the end of the wait (`time.monotonic`), and how to check that it is free."""
        self._place = QueuePlace(path)
        self._until = until
        self._is_free = is_free
        self._pause = _SHORTEST_PAUSE_SECONDS

    @property
    def has_turn(self) -> bool:
        """Whether this process is the first in the queue."""
        return self._place.is_first

    def for_turn(self, seconds: float) -> bool:
        """Wait up to `seconds` seconds to be the first in the queue; return True if no other process was before."""
        return self._place.take() or not self._place.wait(seconds, self._is_free)

    def before_retry(self, failed: float, *, attempt: float) -> None:
        """Wait before the next attempt; the last one took `attempt` seconds and failed at the time `failed`."""
        if self._place.wait(self._until - failed, self._is_free):
            return
        # The first process of the queue retries often. Without a queue, as for a new file, many processes retry at the
        # same time.
        self._pause = min(_LONGEST_PAUSE_SECONDS, _GROWTH_OF_PAUSE * self._pause)
        costly = min(_LONGEST_COSTLY_PAUSE_SECONDS, _PAUSES_FOR_A_TRY * attempt)
        pause = self._pause if self._place.is_taken else max(self._pause, costly)
        time.sleep(max(0.0, min(self._until - failed, pause * own_random.uniform(0.5, 1.0))))

    def end(self) -> None:
        """Leave the queue, so that the next process can continue."""
        self._place.leave()


class QueuePlace:
    """A place in the queue for one journal, from the first `wait` until `leave`."""

    def __init__(self, path: Path) -> None:
        """Store the journal's path. No file is opened."""
        # The log is the file on which SQLite holds no lock. Closing a descriptor of another file of the journal would
        # drop SQLite's locks on it (fcntl(2)).
        self._log = f"{path}-wal"
        self._turn: _Turn | None = None

    @property
    def is_taken(self) -> bool:
        """Whether this process is in the queue, or has waited in it."""
        return self._turn is not None

    @property
    def is_first(self) -> bool:
        """Whether this process is the first in the queue."""
        return self._turn is not None and self._turn.is_first.is_set()

    def wait(self, seconds: float, is_free: Callable[[], bool] = lambda: False) -> bool:
        """
        Wait up to `seconds` seconds to be the first in the queue; return False if no wait was necessary or possible.

        The wait ends earlier if the journal is found free (`is_free`) repeatedly: then the first process does not
        use it.
        """
        if self.is_first:
            return False
        self.take()
        return self._turn is not None and self._turn.wait(seconds, is_free)

    def take(self) -> bool:
        """Join the queue, if there is a queue; return True if this process is the first."""
        if self._turn is None:
            self._turn = _turn_for(self._log)
        return self.is_first

    def leave(self) -> None:
        """Leave the queue now, or as soon as this process is the first, so that the next process becomes the first."""
        if self._turn is not None:
            self._turn.leave()


class _Turn:
    """A descriptor of a log that holds, or waits for, the lock; the holder is the first of the queue."""

    def __init__(self, log: str) -> None:
        """Open the log, and request the lock."""
        self.is_first = threading.Event()
        self.is_left = False
        self._held = HeldDescriptors([move_up(open_file(log, os.O_RDONLY, sets_mode=False))])
        close_in_forks(self)
        (self._number,) = self._held.identities
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_first.set()
        except BlockingIOError:
            self._stand_in_thread()
        except OSError:
            # The file system has no such locks.
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
        """The identity of the log; None if the descriptor is closed."""
        return self._held.identities.get(self._number)

    def _stand(self) -> None:
        # If the author's code has closed the descriptor, there is no lock to wait for.
        with contextlib.suppress(OSError):
            fcntl.flock(self._number, fcntl.LOCK_EX)
        with in_use:
            self.is_first.set()
            if self.is_left:
                self._let_go()

    def wait(self, seconds: float, is_free: Callable[[], bool]) -> bool:
        """Wait to be the first; see `QueuePlace.wait`."""
        until, pause, looks = time.monotonic() + seconds, _SLICE_SECONDS, 0
        while not self.is_first.wait(max(0.0, min(pause, until - time.monotonic()))):
            looks = looks + 1 if is_free() else 0
            if looks == _LOOKS or time.monotonic() >= until:
                break
            # Check less and less often: the checks of hundreds of processes also slow down the writer.
            pause = _BETWEEN_LOOKS_SECONDS if looks else 2 * max(pause, _SLICE_SECONDS)
        return True

    def leave(self) -> None:
        """Release the lock, or keep the place in the queue for the next call of this process."""
        with in_use:
            if self.is_first.is_set():
                self._let_go()
            elif self.log is not None:
                self.is_left = True
                _left.append(self)

    def _let_go(self) -> None:
        # Unlock before closing: a fork of this process may hold a copy of the descriptor.
        with contextlib.suppress(OSError):
            if self._is_ours:
                fcntl.flock(self._number, fcntl.LOCK_UN)
        self.close()

    @property
    def _is_ours(self) -> bool:
        """Whether the number is still the descriptor opened here: SQLite may have reused it for the same file."""
        with contextlib.suppress(OSError):
            # SQLite's descriptors are blocking; those of `open_file` are nonblocking.
            is_apart = fcntl.fcntl(self._number, fcntl.F_GETFL) & os.O_NONBLOCK
            return bool(is_apart) and self.log is not None and self._held.are_ours
        return False

    def close(self) -> None:
        """Close the descriptor; a fork calls this for its copy, and its parent keeps its place in the queue."""
        # Check and forget the number in one step: the next file that SQLite opens may get the number.
        with in_use, contextlib.suppress(OSError):
            is_ours, self._held = self._is_ours, HeldDescriptors()
            if self in _left:
                _left.remove(self)
            if is_ours:
                os.close(self._number)


# While a stopped process is the first, each call would leave one more thread and descriptor. Instead, the next call
# takes over the place that a call has left.
_left: list[_Turn] = []


def _turn_for(log: str) -> _Turn | None:
    """Return a turn that a call of this process has left, or a new one; None if there is no queue."""
    watch_forks()
    # No fork may come in between: it would keep an unknown copy of the descriptor. No queue is possible if the file
    # does not exist yet, if its file system has no such locks, or if no thread can be started.
    with in_use, contextlib.suppress(OSError, RuntimeError):
        found = os.stat(log)  # noqa: PTH116 - pathlib is slower
        for turn in _left:
            if turn.log == (found.st_dev, found.st_ino):
                _left.remove(turn)
                turn.is_left = False
                return turn
        return _Turn(log)
    return None
