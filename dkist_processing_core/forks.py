"""
What a fork must not do with the objects of its parent: a connection, a thread and a lock belong to one process.

Not here: SQLite's connections and kernel locks, whose copies a fork closes (bus).
"""

import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

_forks = itertools.count(1)
_generation = 0


def finalize(owner: object, release: Callable[[], object]) -> "weakref.finalize[..., object]":
    """
    Return a `weakref.finalize` that does nothing in a fork of this process.

    The fork inherits the finalizer, and would run it at its own exit: on the connection that its parent still uses.
    """
    return weakref.finalize(owner, _release_in, os.getpid(), release)


def _release_in(pid: int, release: Callable[[], object]) -> None:
    if os.getpid() == pid:
        release()


class Lock:
    """
    A reentrant lock that is free when a fork begins, whichever thread of its parent held it.

    That thread does not exist in the fork, and would never release it. Reentrant, since a signal's handler runs in the
    thread that it interrupts, and would wait for itself.
    """

    def __init__(self) -> None:
        """Begin unlocked."""
        self._by_process: dict[int, threading.RLock] = {}

    def __enter__(self) -> None:
        """Acquire it."""
        self._own.acquire()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release it."""
        self._own.release()

    @property
    def _own(self) -> threading.RLock:
        # One atomic step, so that two threads cannot make two.
        return self._by_process.setdefault(os.getpid(), threading.RLock())


def generation() -> int:
    """Return a number that rises in both processes whenever this process, or one it descends from, has forked."""
    _count_forks()
    return _generation


def _count() -> None:
    global _generation  # noqa: PLW0603 - a process has one history
    _generation = next(_forks)


@functools.cache
def _count_forks() -> None:
    os.register_at_fork(after_in_parent=_count, after_in_child=_count)
