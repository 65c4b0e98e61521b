"""
The check that a call runs a phase of a task: the call of a coroutine or a generator only creates an object.

Not here: the other checks of a task's class (author_checks).
"""

import inspect

from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text import show


def kind_of_result(function: object) -> str | None:
    """Return the kind of object, such as a coroutine, that a call only creates; None if the call runs it."""
    for is_such, kind in (
        (inspect.iscoroutinefunction, "a coroutine"),
        (inspect.isgeneratorfunction, "a generator"),
        (inspect.isasyncgenfunction, "an asynchronous generator"),
    ):
        try:
            if is_such(function):
                return kind
        except Exception:  # noqa: BLE001 - an author's object may raise at any access
            return None
    return None


def refuse_coroutines(task: object, phase: str) -> None:
    """
    Refuse a phase that a call would not run.

    Raises:
        TypeError: The method is a coroutine function or a generator function.
    """
    # Look up the definition without getting the attribute: a property would run twice.
    found = inspect.getattr_static(task, phase)
    function = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    with signals_deferred():
        kind = kind_of_result(function)
    if kind:
        name = getattr(function, "__qualname__", None) or show(function, 200)
        msg = f"{name} is {kind}, which never runs: define it without `async` and `yield`"
        raise TypeError(msg)
