"""
Termination requests: SIGTERM and SIGHUP raise an exception, so that running work is concluded.

Not here: concluding that work (local, attempt.lifecycle), and how a launcher forwards a request (launcher).
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from dkist_processing_core.process.signals import around_forks

if TYPE_CHECKING:
    import asyncio

# The second line lists the modules that a loop in debug mode uses to find where each step comes from.
_HELPERS_OF_LOOPS = (
    *("selectors", "weakref", "_weakrefset"),
    *("traceback", "linecache", "tokenize", "codecs", "reprlib", "inspect", "functools", "collections", "logging"),
)
_AGAIN_SECONDS = 0.05
_IS_QUIET = "_dkist_processing_core_is_quiet"


class TerminationError(SystemExit):
    """
    This process received a termination request by a signal; `except Exception` does not catch this error.

    It is a SystemExit, since asyncio and other libraries let only that pass. Uncaught, it ends the process with the
    exit status that a shell uses for the signal: 128 plus its number.
    """

    def __init__(self, number: int) -> None:
        """Store the signal."""
        super().__init__(_BY_SIGNAL + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        """Return a text that names the signal."""
        return f"termination requested by {self.signal.name}"


_BY_SIGNAL = 128


@contextlib.contextmanager
def raised_as_exception() -> Iterator[None]:
    """
    Make SIGTERM and SIGHUP raise an exception, as Ctrl-C does.

    When the exception has left the context, the signal ends the process. The exception of Ctrl-C goes on; if no code
    catches it, the interpreter ends without a traceback, which would show this package alone.

    This applies only in the main thread of a standalone program, not at a prompt or in a notebook, and only to signals
    without another handler. In a fork these signals have their default action.
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
    except KeyboardInterrupt as error:
        _end_quietly_at(error)
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        _installed.difference_update(numbers)


def _end_quietly_at(error: KeyboardInterrupt) -> None:
    """Make the interpreter show no traceback of an interrupt that no code catches, unless the program shows its own."""
    # An attribute, since the hook stays: a reference would keep the error, its frames and their values.
    setattr(error, _IS_QUIET, True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show_unless_quiet


def _show_unless_quiet(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    # Python ends by the signal, whatever this function does (the exit status is that of SIGINT).
    if not hasattr(value, _IS_QUIET):
        sys.__excepthook__(kind, value, trace)


class TaskTermination:
    """
    Makes SIGTERM raise once in a launched task, so that `run` is left as by any exception and its resources are closed.

    It is not raised inside the code of an event loop: a step that the loop has just taken from its queue would be lost,
    and the coroutine that waits for the step could no longer be ended. There it is raised as soon as the loop runs
    the author's code.

    This applies only in the main thread, and only if the author has not installed another handler. In a fork the signal
    has its default action. From the end of the attempt on the signal does nothing: the process is about to end, and if
    it does not, the process that waits for it kills it.
    """

    def __init__(self) -> None:
        """Create the object. No handler is installed yet."""
        self.is_requested = False
        """Whether the signal was received."""
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
            signal.signal(signal.SIGTERM, self._handle)

    def conclude(self) -> None:
        """
        Ignore the signal from now on.

        The handler stays and does nothing: with SIG_IGN, the programs that the task still starts would also ignore it.
        """
        self._is_over = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._was_raised or self._is_over:
            return
        self.is_requested = True
        loop = _loop_in(frame)
        if loop is None:
            self._raise_once(number)
            return
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(self._raise_once, number)
        # The loop may be at its end, and run no more steps.
        again = threading.Timer(_AGAIN_SECONDS, self._raise_again, (os.getpid(), number))
        again.daemon = True
        with contextlib.suppress(RuntimeError):  # there are too many threads
            again.start()

    def _raise_again(self, process: int, number: int) -> None:
        # Send the signal only if this handler would get it: the author's code may have installed another one.
        if not (self._was_raised or self._is_over) and signal.getsignal(number) == self._handle:
            os.kill(process, number)

    def _raise_once(self, number: int) -> None:
        if not (self._was_raised or self._is_over):
            self._was_raised = True
            raise TerminationError(number)


def _loop_in(frame: FrameType | None) -> "asyncio.AbstractEventLoop | None":
    """Return the running event loop if its own code was interrupted; None if it was a callback or no loop runs."""
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
    Restore the default action of these signals in forks.

    The signals are blocked during the fork: the interpreter drops signals that a child receives before it is set up.
    """
    os.register_at_fork(after_in_child=_be_default)
    around_forks(_hold_back, _let_through)


def _end_by(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def signal_name(number: int) -> str:
    """Return a signal's name; signals between SIGRTMIN and SIGRTMAX have no names, and get `SIG` plus their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
