"""
Which tests start a process, read from the code that they and their fixtures can reach.

Not here: what the suite's processes are (tests.services.processes), and which tests are run (the Makefile).
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})
"""What Python calls the start of a process when it audits it."""

_CALLS_OF_OS = frozenset(event.removeprefix("os.") for event in EVENTS)
_MODULES = frozenset({"multiprocessing", "subprocess"})
_OWN, _LIBRARY = __package__, "dkist_processing_core"
_CALLED_BY_PYTHON = frozenset({"__enter__", "__init__"})


def starts_process(item: pytest.Item) -> bool:
    """
    Return True if the code of a test, of its fixtures, or of what they call in this project starts a process.

    A call is found by its name: what is called through a variable, a string or the command line is not seen.
    """
    roots = [getattr(item, "function", None)]
    fixtures = getattr(item, "_fixtureinfo", None)
    for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
        roots += [definition.func for definition in definitions]
    return any(_starts(function) for root in roots for function in _functions(root))


@cache
def _starts(function: FunctionType) -> bool:
    seen: set[tuple[FunctionType, type | None]] = {(function, None)}
    unseen = list(seen)
    while unseen:
        current, owner = unseen.pop()
        names = {name for code in _codes(current.__code__) for name in code.co_names}
        if names & _MODULES:
            return True
        for value in (owner, *_used_by(current, names)):
            if (value is os and names & _CALLS_OF_OS) or getattr(value, "__module__", "") in _MODULES:
                return True
            found = set(_reached(value, names)) - seen
            seen |= found
            unseen += found
    return False


def _used_by(function: FunctionType, names: set[str]) -> Iterator[Any]:
    """
    Yield what a function may use: the classes of its arguments, its globals, and what it imports itself.
    """
    yield from (each for each in function.__annotations__.values() if inspect.isclass(each))
    for name in names:
        value = function.__globals__.get(name)
        if name.startswith(f"{_LIBRARY}."):
            with suppress(ImportError):
                value = import_module(name)
        yield value
        if isinstance(value, ModuleType) and value is not os:
            yield from (getattr(value, each, None) for each in names)


def _reached(value: Any, names: set[str]) -> Iterator[tuple[FunctionType, type | None]]:
    """
    Yield the functions of this project that code with these names may call through a value, and the class of each.

    Of a class of the tests these are all methods, of one of the library those that are named.
    """
    home = str(getattr(value, "__module__", "")).partition(".")[0]
    if home not in {_OWN, _LIBRARY}:
        return
    yield from ((function, None) for function in _functions(value))
    if not isinstance(value, FunctionType):
        owner = value if inspect.isclass(value) else type(value)
        for each in owner.__mro__:
            for name, attribute in list(vars(each).items()):
                if home == _OWN or name in names or name in _CALLED_BY_PYTHON:
                    yield from ((function, owner) for function in _functions(attribute))


def _functions(value: Any) -> list[FunctionType]:
    """
    Return the function that is below decorators, a fixture's among them, or none.
    """
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    if hasattr(value, "_get_wrapped_function"):
        value = value._get_wrapped_function()
    value = inspect.unwrap(value) if callable(value) else value
    return [value] if isinstance(value, FunctionType) else []


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
