"""
Signal handlers that are deferred until this package has finished its work in their thread.

Python runs a handler in the main thread, between any two steps of it. An author's handler may raise, as a time limit by
`signal.alarm` does. Inside this package the exception would be mistaken for an error of this package, or for one of the
operating system (`TimeoutError` is an `OSError`), and be handled there; and the interrupted work would be left
incomplete. Blocking the signals would not help: another thread receives them, and the main thread still runs their
handlers. The same holds for the functions that the interpreter calls at a fork. More than 300 lines, since deferring at
a fork shares the state of the rest. Not here: the effect of a termination signal (termination).
"""

import _signal  # type: ignore[import-not-found] # the signal module makes enumerations, at fifty times the cost
import functools
import itertools
import os
import threading
import weakref
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, FunctionType, MethodType, TracebackType
from typing import Any, Self

_Handler = Callable[[int, FrameType | None], Any]
_NUMBERS = range(1, _signal.NSIG)
# Handlers of these modules raise nothing, or an exception that no `except Exception` catches.
_NOT_HELD = ("_signal", "asyncio.", "dkist_processing_core.")
_PLAIN = (FunctionType, MethodType, type(_signal.default_int_handler))
# This is larger than a `struct sigaction` on any system.
_ACTION_BYTES = 1024
# The due handlers and their frames, by the signal's number.
_pending: dict[int, tuple[_Handler, FrameType | None]] = {}


class signals_deferred:  # noqa: N801 - read as a function, as those of contextlib
    """
    A context that no author's handler interrupts: each handler that becomes due inside it is called once, at its end.

    An exception of the handler leaves the context then. Without `delivers` the handler is called at the end of the next
    context. With `interrupts` all handlers are deferred, including those of Ctrl-C and of this package; otherwise these
    run at once. Inside another such context, and in threads other than the main one, it does nothing.
    """

    __slots__ = ("__weakref__", "_delivers", "_interrupts", "_is_holding", "_numbers")

    def __init__(self, *, delivers: bool = True, interrupts: bool = False) -> None:
        """Create the context. No handler is deferred yet."""
        self._delivers = delivers
        self._interrupts = interrupts
        self._is_holding = False
        self._numbers: list[int] = []

    def __enter__(self) -> Self:
        """Defer handlers from now on."""
        if threading.get_ident() != threading.main_thread().ident or _holder() is not None:
            return self
        _watch_forks()
        try:
            self._is_holding = True
            _hold_by(weakref.ref(self))
            # There is rarely a handler to defer, and each progress report runs this code.
            if not all(map(self._passes, filter(callable, map(_signal.getsignal, _NUMBERS)))):
                self._hold()
            return self  # noqa: TRY300 - what interrupts this has no block to leave, either
        except BaseException:
            # A handler that was not deferred yet raised this.
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
        """Return True if one of these signals is due here; it is then consumed, and its handler is not called."""
        due = [_pending.pop(number, None) for number in numbers] if self._is_holding else []
        return any(due)

    def _passes(self, handler: _Handler) -> bool:
        is_plain = not self._interrupts and type(handler) in _PLAIN
        return is_plain and str(handler.__module__).startswith(_NOT_HELD)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the handlers, and call those that are due."""
        if self._is_holding:
            self._end()

    def _end(self) -> None:
        try:
            _hold_by(_no_context)
            _put_back(self._numbers)
            self._is_holding = False
        finally:
            if self._delivers:
                _deliver()


def _no_context() -> signals_deferred | None:
    return None


# A weak reference: an interrupt may also come between any two steps here, and then the context must not outlive its
# block. A `_Waiting` that is called by a signal afterwards calls the handler behind it.
_holder: Callable[[], signals_deferred | None] = _no_context


def _hold_by(holder: Callable[[], signals_deferred | None]) -> None:
    global _holder  # noqa: PLW0603 - a process has one main thread
    _holder = holder


class _Waiting:
    """
    Replaces one handler of one signal: it records the signal while handlers are deferred, and otherwise calls the
    handler.

    The author's code, such as a log handler, may get it by `getsignal` and keep it, to call it from another handler.
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
    """Set Python's handler of a signal, and keep the system's action: a library may have installed its own there."""
    set_action = _action_of(number)
    try:
        _signal.signal(number, handler)
    except ValueError as error:
        # `signal` itself raises this if the interpreter runs handlers in another thread than the main one of
        # `threading`.
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
    finally:
        # `signal` has also undone the setting of `siginterrupt`.
        set_action()


def _action_of(number: int) -> Callable[[], object]:
    """Return a function that restores the system's present action of a signal (sigaction(2))."""
    try:
        import ctypes  # noqa: PLC0415 - for this alone, which is rare

        # It is called with the interpreter's lock held: otherwise another thread would run for a while at each call.
        sigaction = ctypes.pythonapi.sigaction
    except (ImportError, AttributeError):
        return lambda: None
    except OSError as error:
        # No descriptor is left for the import. The exception of a time limit has no error number.
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
            # The author's code, such as a log handler, may have installed another handler in the meantime.
            if type(waiting) is _Waiting:
                _install(number, waiting.handler)
    finally:
        if numbers:
            # Continue after an exception of a handler that is no longer deferred.
            _put_back(numbers)


def _deliver() -> None:
    for number in list(_pending):
        # A handler that is called here may itself have run this function.
        if (due := _pending.pop(number, None)) is not None:
            handler, frame = due
            try:
                handler(number, frame)
            finally:
                # The other handlers are called even if this one raises.
                _deliver()


@functools.cache
def _watch_forks() -> None:
    """Make a fork by another thread begin without the deferred signals of its parent."""
    os.register_at_fork(after_in_child=_forget_pending)


def _forget_pending() -> None:
    _hold_by(_no_context)
    _pending.clear()


def around_forks(before: Callable[[], None], after: Callable[[], None]) -> None:
    """
    Call a function before each fork, and another one after it in the parent, where no handler may run.

    The interpreter drops an exception that leaves such a function: a time limit, a termination request or Ctrl-C would
    be lost. Handlers that become due during a fork are called once it is over.
    """
    _around.append((before, after))
    _watch_forks()
    _call_around_forks()
    _guard_forks()


_around: list[tuple[Callable[[], None], Callable[[], None]]] = []
_guard: "signals_deferred | None" = None


@functools.cache
def _call_around_forks() -> None:
    def before_fork() -> None:
        for before, _ in reversed(_around):
            before()

    def after_fork() -> None:
        for _, after in _around:
            after()

    os.register_at_fork(before=before_fork, after_in_parent=after_fork)


def _guard_forks() -> None:
    """Defer all handlers from the first to the last of the functions that were registered until now."""
    global _guard  # noqa: PLW0603 - the interpreter has one list of such functions
    guard = _guard = signals_deferred(delivers=False, interrupts=True)

    def hold() -> int:
        # Another one may have been registered since, which is outside.
        if guard is _guard:
            guard.__enter__()
        return _NO_SIGNAL

    def release() -> int:
        guard.__exit__(None, None, None)
        return _trap_pending() if guard is _guard else _NO_SIGNAL

    def begin_in_child() -> None:
        _forget_pending()
        guard.__exit__(None, None, None)

    os.register_at_fork(before=_hook(hold), after_in_parent=_hook(release), after_in_child=begin_in_child)


def _hook(step: Callable[[], int]) -> Callable[[], None]:
    """
    Return a hook that takes a step in the main thread, and simulates the signal that the step returns.

    No exception of a handler leaves the hook, at any instruction: it has no bytecode but that of `_steps`. And the
    interpreter has no occasion to handle the simulated signal before the hook has ended.
    """
    steps = {threading.main_thread().ident: _steps(step)}
    next(steps[threading.main_thread().ident])
    of_thread = map(steps.get, iter(threading.get_ident, None), itertools.repeat(itertools.repeat(_NO_SIGNAL)))
    return map(interrupt_main, map(next, of_thread)).__next__  # type: ignore[arg-type] # any number will do


def _steps(step: Callable[[], int]) -> Iterator[int]:
    """Take a step at each resumption; keep what a handler raises that was not deferred yet, or is not any more."""
    number = _NO_SIGNAL
    is_due = False
    while True:
        try:
            while True:
                try:
                    # A handler is also called at the jump back to the start of a loop. That of this loop is inside its
                    # `try`, that of the next outer one inside the other `try`.
                    while True:
                        if is_due:
                            number = step()
                        is_due = True
                        # An exception at the resumption is raised here.
                        yield number
                except GeneratorExit:  # the interpreter ends
                    return
                except BaseException as error:  # noqa: BLE001 - raised again after the fork
                    _keep(error)
        except BaseException as error:  # noqa: BLE001 - another one
            _keep(error)


# The interpreter ignores the simulation of a signal that has no handler, and this one never has.
_NO_SIGNAL = int(_signal.SIGKILL)


def _keep(error: BaseException) -> None:
    def raise_again(_: int, __: FrameType | None) -> None:
        raise error.with_traceback(None)

    # No signal has such a number.
    _pending[min((0, *_pending)) - 1] = raise_again, None


def _trap_pending() -> int:
    """Install a handler that calls those that are due, and return its signal."""
    if not _pending or _holder() is not None:
        return _NO_SIGNAL
    usable = [number for number in _NUMBERS if callable(_signal.getsignal(number))]
    if not usable:
        return _NO_SIGNAL
    number = max(usable, key=_pending.__contains__)
    handler = _signal.getsignal(number)
    if type(handler) is not _Due:
        _install(number, _Due(handler))
    return number


class _Due:
    """Replaces a handler once: it calls all that are due."""

    __slots__ = ("_handler",)

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _signal.getsignal(number) is self:
            _install(number, self._handler)
        if _holder() is None:
            # Not the frames of the hooks, in which they became due.
            _pending.update({number: (handler, frame) for number, (handler, _) in _pending.items()})
            _deliver()
