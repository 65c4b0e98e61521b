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
# What is held back, by number; never removed, since who was given `_note` for a handler may install it again.
_handlers: dict[int, _Handler] = {}
_pending: dict[int, FrameType | None] = {}


class held_back:  # noqa: N801 - read as a function, as those of contextlib
    """
    A context that no handler of the author's interrupts: each that is due meanwhile is called at its end, once.

    What the handler raises leaves the context then. Without `delivers` it is called at the end of the next one. With
    `interrupts` this holds for each handler, also of Ctrl-C and of this package; else they run at once. Inside of
    another context, and in other threads than the main one, it does nothing.
    """

    __slots__ = ("__weakref__", "_delivers", "_interrupts", "_is_holding")

    def __init__(self, *, delivers: bool = True, interrupts: bool = False) -> None:
        """Hold back nothing yet."""
        self._delivers = delivers
        self._interrupts = interrupts
        self._is_holding = False

    def __enter__(self) -> Self:
        """Have what is due wait from now on."""
        if threading.get_ident() != threading.main_thread().ident or _holder() is not None:
            return self
        _watch_forks()
        self._is_holding = True
        _hold_by(weakref.ref(self))
        # Nearly always there is nothing to hold, and each report of progress comes by here.
        if not all(map(self._passes, filter(callable, map(_signal.getsignal, _NUMBERS)))):
            self._hold()
        return self

    def _hold(self) -> None:
        try:
            for number, handler in zip(_NUMBERS, map(_signal.getsignal, _NUMBERS), strict=True):
                if callable(handler) and handler is not _note and not self._passes(handler):
                    _handlers[number] = handler
                    _signal.signal(number, _note)
        except BaseException:
            # Raised by a handler that was not held yet.
            _release()
            raise

    def take(self, numbers: Iterable[int]) -> bool:
        """Return True if one of these signals is due here; it is dealt with then, and its handler is not called."""
        due = [number for number in numbers if self._is_holding and number in _pending]
        for number in due:
            del _pending[number]
        return bool(due)

    def _passes(self, handler: _Handler) -> bool:
        is_plain = not self._interrupts and type(handler) in _PLAIN and handler is not _note
        return is_plain and str(handler.__module__).startswith(_NOT_HELD)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put the handlers back, and call those that are due."""
        if self._is_holding:
            _release()
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


def _note(number: int, frame: FrameType | None) -> None:
    if _holder() is not None:
        _pending[number] = frame
    elif number in _handlers:
        _handlers[number](number, frame)


def _release() -> None:
    _hold_by(_nobody)
    for number, handler in list(_handlers.items()):
        # The author's code may have installed another one meanwhile, as a handler of logs may.
        if _signal.getsignal(number) is _note:
            _signal.signal(number, handler)


def _deliver() -> None:
    if not _pending:
        return
    number = next(iter(_pending))
    frame = _pending.pop(number)
    try:
        handler = _signal.getsignal(number)
        if callable(handler):
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
