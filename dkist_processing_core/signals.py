"""
Handlers of signals that wait for the end of what this package does in their thread.

Python runs a handler in the main thread, between any two steps of it. An author's may raise, as a time limit by
`signal.alarm` does. Within this package that would be taken for an error of ours, or for one of the operating system
(`TimeoutError` is an `OSError`), and be handled there; and what it interrupts would be left half done. To block the
signals would not help: another thread receives them, and the main thread runs their handlers all the same.
Not here: what a signal to end does (termination).
"""

import _signal  # type: ignore[import-not-found] # the signal module makes enumerations, at fifty times the cost
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from types import FrameType, FunctionType, MethodType, TracebackType
from typing import Any, Self

_Handler = Callable[[int, FrameType | None], Any]
_NUMBERS = range(1, _signal.NSIG)
# Their handlers raise what no `except Exception` takes, or nothing.
_NOT_HELD = ("_signal", "asyncio.", "dkist_processing_core.")
_PLAIN = (FunctionType, MethodType, type(_signal.default_int_handler))
# More than a `struct sigaction` has on any system.
_ACTION_BYTES = 1024
# What is due, and its handler, by number.
_pending: dict[int, tuple[_Handler, FrameType | None]] = {}


class held_back:  # noqa: N801 - read as a function, as those of contextlib
    """
    A context that no handler of the author's interrupts: each that is due meanwhile is called at its end, once.

    What the handler raises leaves the context then. Without `delivers` it is called at the end of the next one. With
    `interrupts` this holds for each handler, also of Ctrl-C and of this package; else they run at once. Inside of
    another context, and in other threads than the main one, it does nothing.
    """

    __slots__ = ("__weakref__", "_delivers", "_interrupts", "_is_holding", "_numbers")

    def __init__(self, *, delivers: bool = True, interrupts: bool = False) -> None:
        """Hold back nothing yet."""
        self._delivers = delivers
        self._interrupts = interrupts
        self._is_holding = False
        self._numbers: list[int] = []

    def __enter__(self) -> Self:
        """Have what is due wait from now on."""
        if threading.get_ident() != threading.main_thread().ident or _holder() is not None:
            return self
        _watch_forks()
        try:
            self._is_holding = True
            _hold_by(weakref.ref(self))
            # Nearly always there is nothing to hold, and each report of progress comes by here.
            if not all(map(self._passes, filter(callable, map(_signal.getsignal, _NUMBERS)))):
                self._hold()
            return self  # noqa: TRY300 - what interrupts this has no block to leave, either
        except BaseException:
            # Raised by a handler that was not held yet.
            self._end()
            raise

    def _hold(self) -> None:
        found = zip(_NUMBERS, map(_signal.getsignal, _NUMBERS), strict=True)
        held = [(number, handler) for number, handler in found if callable(handler) and not self._passes(handler)]
        self._numbers = [number for number, _ in held]
        for number, handler in held:
            if type(handler) is not _Waiting:
                _install(number, _Waiting(number, handler))

    def take(self, numbers: Iterable[int]) -> bool:
        """Return True if one of these signals is due here; it is dealt with then, and its handler is not called."""
        due = [_pending.pop(number, None) for number in numbers] if self._is_holding else []
        return any(due)

    def _passes(self, handler: _Handler) -> bool:
        is_plain = not self._interrupts and type(handler) in _PLAIN
        return is_plain and str(handler.__module__).startswith(_NOT_HELD)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put the handlers back, and call those that are due."""
        if self._is_holding:
            self._end()

    def _end(self) -> None:
        try:
            _hold_by(_nobody)
            _put_back(self._numbers)
        finally:
            if self._delivers:
                _deliver()


def _nobody() -> held_back | None:
    return None


# By a weak reference: an interrupt may come between any two steps here as well, and what holds must not outlive its
# block then. A handler that is called by a signal afterwards passes it on.
_holder: Callable[[], held_back | None] = _nobody


def _hold_by(holder: Callable[[], held_back | None]) -> None:
    global _holder  # noqa: PLW0603 - a process has one main thread
    _holder = holder


class _Waiting:
    """
    Stands for one handler of one signal: notes it while handlers are held back, and calls that handler otherwise.

    The author's code may get it by `getsignal` and keep it, as a handler of logs may, for one of its own to go on to.
    """

    __slots__ = ("_number", "handler")

    def __init__(self, number: int, handler: _Handler) -> None:
        self._number = number
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _holder() is None:
            self.handler(number, frame)
        else:
            _pending[self._number] = self.handler, frame


def _install(number: int, handler: _Handler) -> None:
    """Change what Python calls at a signal, and nothing of what the system does: a library may have its own there."""
    set_action = _action_of(number)
    try:
        _signal.signal(number, handler)
    except ValueError as error:
        # Of `signal` itself: the interpreter calls handlers in another thread than `threading` has for the main one.
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
    finally:
        # It has undone what `siginterrupt` has set, too.
        set_action()


def _action_of(number: int) -> Callable[[], object]:
    """Return what sets the action of the system at a signal to what it is now (sigaction(2))."""
    try:
        import ctypes  # noqa: PLC0415 - for this alone, which is rare

        # With the interpreter's lock, without which another thread would run for a while at each call.
        sigaction = ctypes.pythonapi.sigaction
    except (ImportError, AttributeError):
        return lambda: None
    except OSError as error:
        # There is no descriptor to import it by. A time limit has no number.
        if error.errno is None:
            raise
        return lambda: None
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    sigaction(number, None, action)
    return functools.partial(sigaction, number, action, None)


def _put_back(numbers: list[int]) -> None:
    try:
        while numbers:
            number = numbers.pop()
            waiting = _signal.getsignal(number)
            # The author's code may have installed another one meanwhile, as a handler of logs may.
            if type(waiting) is _Waiting:
                _install(number, waiting.handler)
    finally:
        if numbers:
            # Whatever a handler has raised that is not held back any more.
            _put_back(numbers)


def _deliver() -> None:
    for number in list(_pending):
        # A handler that is called here may have come by here itself.
        if (due := _pending.pop(number, None)) is not None:
            handler, frame = due
            try:
                handler(number, frame)
            finally:
                # Whatever it raises.
                _deliver()


@functools.cache
def _watch_forks() -> None:
    """Have a fork of another thread begin without what is held back in its parent."""

    def begin_anew() -> None:
        _hold_by(_nobody)
        _pending.clear()

    os.register_at_fork(after_in_child=begin_anew)
