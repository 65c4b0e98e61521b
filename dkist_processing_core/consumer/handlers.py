"""
The functions of an author that a consumer calls: which events they want, and which arguments they take.

Not here: when they are called, and what becomes of their errors (worker, timers).
"""

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dkist_processing_core.consumer._selection import Selection
from dkist_processing_core.consumer.event_loop import EventLoop
from dkist_processing_core.events import Event
from dkist_processing_core.text import clean_line, redact, show
from dkist_processing_core.text.exception_text import class_name, message_of

TRANSACTION = "transaction"
"""The name of the parameter by which a handler joins the transaction."""
_LONGEST_LINE = 1000
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Called:
    """A function of an author, and how it is called."""

    function: Callable[..., Any]
    name: str
    """The name of the function, for logs."""
    takes_transaction: bool
    is_async: bool
    """Whether the function is to be run on an event loop."""
    takes_batch: bool = False
    """Whether it takes a sequence of the events that share its transaction, instead of one event."""

    @property
    def full_name(self) -> str:
        """The name of the function with that of its module."""
        module = getattr(_plain(self.function), "__module__", None)
        return f"{module}.{self.name}" if isinstance(module, str) else self.name

    def call(self, *values: object, transaction: object, loop: EventLoop, secrets: Iterable[str] = ()) -> None:
        """
        Call the function, an `async` one on the loop, and wait for its end; a log of its failure has no secrets.

        Raises:
            TypeError: The function has only begun its work, and returned an object that is to be awaited.
        """
        named = {TRANSACTION: transaction} if self.takes_transaction else {}
        if self.is_async:
            loop.run(self._awaited(self.function(*values, **named), secrets))
            return
        with _left_by_its_process(self.name, secrets):
            result = self.function(*values, **named)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            msg = (
                f"{self.name} returned {type(result).__name__}, which nothing awaits; expected `async def {self.name}`"
            )
            raise TypeError(msg)

    async def _awaited(self, work: Awaitable[object], secrets: Iterable[str]) -> None:
        with _left_by_its_process(self.name, secrets):
            await work


@contextmanager
def _left_by_its_process(name: str, secrets: Iterable[str]) -> Iterator[None]:
    """End a fork that leaves the block: it would go on as a second worker, on the connections of its parent."""
    process, status = os.getpid(), 0
    try:
        yield
    except BaseException as error:
        if os.getpid() == process:
            raise
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            status = 1
            # The locks of the log and of the streams may be those of threads that do not exist here.
            with suppress(OSError):
                os.write(2, f"{name} has failed in a fork of the consumer: {line_of(error, secrets)}\n".encode())
    finally:
        if os.getpid() != process:
            os._exit(status & 0xFF)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function for events, and the events that it wants."""

    selection: Selection
    called: Called


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function or of another callable object."""
    return str(getattr(_plain(function), "__qualname__", None) or type(function).__qualname__)


def line_of(error: BaseException, secrets: Iterable[str]) -> str:
    """Return an exception as one line for a log, in at most 1,000 characters: without these and other secrets."""
    text = ": ".join(part for part in (class_name(type(error)), message_of(error)) if part)
    # Redacted before it is cut: a part of a secret would not be recognised.
    line = redact(clean_line(text[: 2 * _LONGEST_LINE]), also=secrets)
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"


def called_with(function: Callable[..., Any], *, takes_event: bool) -> Called:
    """
    Return how a function is called.

    Args:
        function: It takes the event as its first parameter if `takes_event`, and perhaps a parameter `transaction`.
        takes_event: False for timed work, which takes no event.

    Raises:
        TypeError: It takes other parameters, or it is no function that does its work when it is called.
    """
    expected = "handler(event) or handler(event, transaction)" if takes_event else "work() or work(transaction)"
    if not callable(function):
        msg = f"found {show(function)}, expected a function: {expected}"
        raise TypeError(msg)
    if inspect.isclass(function):
        msg = f"found the class {name_of(function)}, expected a function: {expected}"
        raise TypeError(msg)
    plain = _plain(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        msg = f"{name_of(function)} is a generator, which does nothing when it is called; expected {expected}"
        raise TypeError(msg)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        found = f"found {name_of(function)}, whose parameters are not known"
        msg = f"{found}, expected {expected}: write a function that calls it"
        raise TypeError(msg) from None
    parameters = list(signature.parameters.values())
    values = [each for each in parameters if each.kind in _POSITIONAL and each.name != TRANSACTION]
    own = values[:1] if takes_event else []
    rest = [each for each in parameters if each not in own and each.name != TRANSACTION]
    required = [
        each.name
        for each in rest
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    transaction = next((each for each in parameters if each.name == TRANSACTION), None)
    has_event = not takes_event or own or any(each.kind is each.VAR_POSITIONAL for each in parameters)
    if required or not has_event or (transaction is not None and transaction.kind is transaction.POSITIONAL_ONLY):
        found = f"{name_of(function)}{signature}"
        msg = f"found {found}, expected {expected}; give other parameters a default"
        raise TypeError(msg)
    return Called(function, name_of(function), transaction is not None, inspect.iscoroutinefunction(plain))


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind a method, a partial or an object that can be called."""
    while hasattr(function, "func"):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    return function


def wanting(handlers: list[Handler], event: Event) -> list[Called]:
    """Return the functions that want an event, each once, in the order of their registration."""
    found: list[Called] = []
    for handler in handlers:
        if handler.selection.matches(event) and handler.called not in found:
            found.append(handler.called)
    return found
