"""
Calls of an author to a workflow: a mistake ends in one sentence, one frame of this module below the author's own line.

Not here: the checks of the given values (names, tasks, values).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from dkist_processing_core.author_checks.values import SHOWN
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.text import show

P = ParamSpec("P")
R = TypeVar("R")


def author_call(example: str, **hints: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """
    Return a decorator for a method that authors call.

    An error of this package then has no frames of the code that found it, and no chain of other errors. A call with
    wrong arguments is a `TypeError` that names the right ones.

    Args:
        example: A right call.
        hints: What to do for an argument that authors expect and that does not exist, by its name.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except DKISTProcessingCoreError as error:
                mistake: Exception = error
            except TypeError as error:
                # Raised by the call itself, so that the method was not entered?
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise
                mistake = TypeError(f"{_mistake_in(method, args[1:], kwargs, hints) or error}; for example: {example}")
            raise mistake.with_traceback(None) from mistake.__cause__

        return call

    return decorate


def _mistake_in(
    method: Callable[..., Any], given: tuple[object, ...], named: Mapping[str, object], hints: Mapping[str, str]
) -> str | None:
    """Return the mistake in a call as text: an unknown, a missing or an unnamed argument."""
    import difflib  # noqa: PLC0415 - only after a mistake
    import inspect  # noqa: PLC0415

    parameters = list(inspect.signature(method).parameters.values())[1:]
    names = [each.name for each in parameters]
    places = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    what = method.__qualname__.removesuffix(".__init__")
    for name in named:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            expected = hints.get(name) or (close[0] if close else f"one of {', '.join(names)}")
            return f"{what}: found the argument {show(name, SHOWN)}, expected {expected}"
    if len(given) > len(places):
        return f"{what}: found {show(given[len(places)], SHOWN)} without a name, expected name=value"
    missing = [each.name for each in places[len(given) :] if each.default is each.empty and each.name not in named]
    return f"{what} needs {', '.join(missing)}" if missing else None
