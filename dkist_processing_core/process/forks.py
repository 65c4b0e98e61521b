"""
Protection of a process's objects from its forks: a connection, a thread and a lock belong to one process.

Not here: SQLite's connections and kernel locks, whose copies a fork closes (bus).
"""

import collections
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

_Value = TypeVar("_Value")
_generations = collections.deque([0], maxlen=1)


def finalize(owner: object, release: Callable[[], object]) -> "weakref.finalize[..., object]":
    """
    Return a `weakref.finalize` that does nothing in a fork of this process.

    The fork inherits the finalizer. At its own exit it would run it on the connection that its parent still uses.
    """
    return weakref.finalize(owner, _release_in, os.getpid(), release)


def _release_in(pid: int, release: Callable[[], object]) -> None:
    if os.getpid() == pid:
        release()


class Lock:
    """
    A reentrant lock that is free when a fork begins, even if a thread of its parent held it.

    That thread does not exist in the fork, and would never release the lock. It is reentrant, since a signal handler
    runs in the thread that it interrupts, and would wait for its own thread.
    """

    def __init__(self) -> None:
        """Create an unlocked lock."""
        self._by_process: dict[int, threading.RLock] = {}

    def __enter__(self) -> None:
        """Acquire the lock."""
        self._own.acquire()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock."""
        self._own.release()

    @property
    def _own(self) -> threading.RLock:
        # This is one atomic step, so that two threads cannot create two locks.
        return self._by_process.setdefault(os.getpid(), threading.RLock())


class computed_once(Generic[_Value]):  # noqa: N801 - read as a decorator
    """
    A property that stores its first value in the object's `__dict__`, and needs no lock for that.

    `functools.cached_property` of Python 3.11 computes under one lock for all objects of a class. A fork may inherit
    that lock while it is held. Here two threads may compute at the same time; both get the value that is stored.
    """

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        """Store the method that computes the value."""
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, owner_type: type) -> Self: ...
    @overload
    def __get__(self, owner: object, owner_type: type | None = None) -> _Value: ...
    def __get__(self, owner: object | None, owner_type: type | None = None) -> "Self | _Value":
        """Return the computed value and store it: from then on Python finds it in the object first."""
        if owner is None:
            return self
        value: _Value = vars(owner).setdefault(self._name, self._compute(owner))
        return value


class _Process(Protocol):
    def begin_in_fork(self) -> None: ...


_of_process: "weakref.WeakSet[_Process]" = weakref.WeakSet()


def begin_in_forks(of_process: _Process) -> None:
    """Call `begin_in_fork` of an object in each fork of this process, before any other code of the fork."""
    _of_process.add(of_process)
    _watch_forks()


def _begin() -> None:
    for each in list(_of_process):
        each.begin_in_fork()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_begin)


def generation() -> int:
    """Return a number that rises in both processes whenever this process, or one it descends from, has forked."""
    _count_forks()
    return _generations[0]


@functools.cache
def _count_forks() -> None:
    # It has no bytecode, so that no handler of a signal runs in it: an exception would be lost.
    count = map(_generations.append, itertools.count(1)).__next__
    os.register_at_fork(after_in_parent=count, after_in_child=count)
