"""
Being told to end: SIGTERM and SIGHUP as an exception, so that what was begun is ended.

Not here: what is ended then (local).
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class TerminationError(BaseException):
    """This process was told to end by a signal; no error that `except Exception` should see."""

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        super().__init__(f"told to end by {signal.Signals(number).name}")
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def raised_as_exception() -> Iterator[None]:
    """
    Have SIGTERM and SIGHUP raise, as Ctrl-C does, and end this process as they would have once that has passed.

    Only in the main thread of a program of its own, not at a prompt or in a notebook, and only where nobody has said
    what these signals should do. In a fork they do what they always do.
    """
    is_hosted = hasattr(sys, "ps1") or "ipykernel" in sys.modules
    if is_hosted or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    _watch_forks()
    _installed.update(numbers)
    for number in numbers:
        signal.signal(number, _raise)
    try:
        yield
    except TerminationError as error:
        _end_by(error.signal)
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        _installed.difference_update(numbers)


def _raise(number: int, _: FrameType | None) -> None:
    raise TerminationError(number)


_installed: set[signal.Signals] = set()


def _hold_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _installed)


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _installed)


def _be_default() -> None:
    for number in _installed:
        signal.signal(number, signal.SIG_DFL)
    _let_through()


@functools.cache
def _watch_forks() -> None:
    """
    Have forks do with these signals what they always do.

    They are held back over the fork: the interpreter drops what a child was sent before it is set up.
    """
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_be_default)


def _end_by(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
