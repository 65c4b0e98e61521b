"""
Finds the tests that start a process, in the code that they and their fixtures can reach.

Not here: which processes belong to the suite (tests.services.processes), and which tests are run (the Makefile).
"""

import inspect
import os
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from dkist_processing_core import Workflow
from dkist_processing_core.environments import Environments

EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})
"""Python's audit events for the start of a process."""

_CALLS_OF_OS = frozenset(event.removeprefix("os.") for event in EVENTS)
_MODULES = frozenset({"multiprocessing", "subprocess"})
_METHODS = {Workflow: {"run"}, Environments: {"prepare", "rebuild"}}
_TESTS = __package__


def starts_process(item: pytest.Item) -> bool:
    """
    Return True if the code of a test, of its fixtures, or of functions that they call in the tests starts a process.

    A call is found by its name. Calls through a variable, a string or the command line are not found.
    """
    roots = [getattr(item, "function", None)]
    fixtures = getattr(item, "_fixtureinfo", None)
    for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
        roots += [definition.func for definition in definitions]
    return any(starts(function) for root in roots for function in _functions(root))


@cache
def starts(function: FunctionType) -> bool:
    """
    Return True if the code of a function, or of functions that it calls in the tests, starts a process.
    """
    seen = {function}
    unseen = [function]
    while unseen:
        current = unseen.pop()
        names = {name for code in _codes(current.__code__) for name in code.co_names}
        if names & _MODULES:
            return True
        for value in _used_by(current, names):
            if _is_start(value, names):
                return True
            found = set(_reached(value)) - seen
            seen |= found
            unseen += found
    return False


def _used_by(function: FunctionType, names: set[str]) -> Iterator[Any]:
    """
    Yield the classes of a function's arguments, the globals that it uses, and the names that it uses of modules.
    """
    yield from (each for each in function.__annotations__.values() if inspect.isclass(each))
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType) and value is not os:
            yield from (getattr(value, each, None) for each in names)


def _is_start(value: Any, names: set[str]) -> bool:
    if value is os:
        return not names.isdisjoint(_CALLS_OF_OS)
    of = value if inspect.isclass(value) else type(value)
    return getattr(value, "__module__", "") in _MODULES or not names.isdisjoint(_METHODS.get(of, ()))


def _reached(value: Any) -> Iterator[FunctionType]:
    """
    Yield the functions of the tests that may be called through a value: the value, or all methods of its class.
    """
    if str(getattr(value, "__module__", "")).partition(".")[0] == _TESTS:
        yield from _functions(value)
        if not isinstance(value, FunctionType):
            for each in (value if inspect.isclass(value) else type(value)).__mro__:
                for attribute in list(vars(each).values()):
                    yield from _functions(attribute)


def _functions(value: Any) -> list[FunctionType]:
    """
    Return a list with the function below the decorators, including a fixture's, or an empty list.
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
