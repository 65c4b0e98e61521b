"""
Being told to end: SIGTERM and SIGHUP as an exception, so that what was begun is ended.

Not here: what is ended then (local, lifecycle), and how a launcher passes it on (launcher).
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

# The second line is what a loop in its debug mode asks where each step comes from.
_HELPERS_OF_LOOPS = (
    *("selectors", "weakref", "_weakrefset"),
    *("traceback", "linecache", "tokenize", "codecs", "reprlib", "inspect", "functools", "collections", "logging"),
)
_AGAIN_SECONDS = 0.05


class TerminationError(SystemExit):
    """
    This process was told to end by a signal; no error that `except Exception` should see.

    A SystemExit, which asyncio and others let through as they do no other; uncaught it leaves with the status that a
    shell has for the signal, 128 and its number.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        super().__init__(_BY_SIGNAL + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        """Say which signal it was."""
        return f"told to end by {self.signal.name}"


_BY_SIGNAL = 128


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
        if error.signal in numbers:
            _end_by(error.signal)
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        _installed.difference_update(numbers)


class TaskTermination:
    """
    Has SIGTERM raise in a launched task, once, so that `run` is left as by any exception, and what it holds is let go.

    Not within the machinery of an event loop: a step that it has taken out to do would be lost, and the coroutine that
    waits for it could not be ended any more. There it is raised as soon as the loop does something of the author's.

    Only in the main thread, and only where the author has not said what the signal should do; in a fork it does what
    it always does. From the end of the attempt on it does nothing: the process is about to end, and whoever waits for
    that kills it in the end.
    """

    def __init__(self) -> None:
        """Install nothing yet."""
        self.was_told = False
        """Whether the signal came."""
        self._was_raised = False
        self._is_over = False

    def begin(self) -> None:
        """Install the handler."""
        is_free = threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        )
        if is_free:
            _watch_forks()
            _installed.add(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._heed)

    def conclude(self) -> None:
        """
        Let the signal be, from now on.

        By a handler that does nothing: what is ignored would be ignored by the programs that the task still starts.
        """
        self._is_over = True

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if self._was_raised or self._is_over:
            return
        self.was_told = True
        loop = _loop_in(frame)
        if loop is None:
            self._raise_once(number)
            return
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(self._raise_once, number)
        # It may be at its end, and take no more steps.
        again = threading.Timer(_AGAIN_SECONDS, self._tell_again, (os.getpid(), number))
        again.daemon = True
        with contextlib.suppress(RuntimeError):  # there are too many threads
            again.start()

    def _tell_again(self, process: int, number: int) -> None:
        # Only where it would come back to this: the author may have said by now what the signal should do.
        if not (self._was_raised or self._is_over) and signal.getsignal(number) == self._heed:
            os.kill(process, number)

    def _raise_once(self, number: int) -> None:
        if not (self._was_raised or self._is_over):
            self._was_raised = True
            raise TerminationError(number)


def _loop_in(frame: FrameType | None) -> "asyncio.AbstractEventLoop | None":
    """Return the running event loop where what was interrupted is its own code, and not what it does for others."""
    loaded = sys.modules.get("asyncio")
    if loaded is None:
        return None
    while frame is not None and frame.f_globals.get("__name__") in _HELPERS_OF_LOOPS:
        frame = frame.f_back
    if frame is None or not str(frame.f_globals.get("__name__")).startswith("asyncio."):
        return None
    try:
        loop: asyncio.AbstractEventLoop = loaded.get_running_loop()
    except RuntimeError:
        return None
    return loop


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


def signal_name(number: int) -> str:
    """Return a signal's name; those between SIGRTMIN and SIGRTMAX have none of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
