"""
Calls of an author to a workflow or a consumer: wrong arguments are one sentence, one frame below the author's own line.

Not here: the checks of the given values (author_checks, consumer.declaration).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.text import show

# The length in characters to which a message cuts a value.
_SHOWN = 120
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
                mistake = TypeError(f"{_mistake_in(method, args, kwargs, hints) or error}; for example: {example}")
            raise mistake.with_traceback(None) from mistake.__cause__

        return call

    return decorate


def _mistake_in(
    method: Callable[..., Any], given: tuple[object, ...], named: Mapping[str, object], hints: Mapping[str, str]
) -> str | None:
    """Return the mistake in a call of a method of `given[0]` as text: an unknown, a missing or an unnamed argument."""
    import difflib  # noqa: PLC0415 - only after a mistake
    import inspect  # noqa: PLC0415

    parameters = list(inspect.signature(method).parameters.values())[1:]
    names = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
    places = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    takes_all = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    # The class that the author has called; one above it may define the method.
    called, *values = given
    what = f"{type(called).__name__}.{method.__name__}".removesuffix(".__init__")
    for name in named:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            expected = hints.get(name) or (close[0] if close else f"one of {', '.join(names)}")
            return f"{what}: found the argument {show(name, _SHOWN)}, expected {expected}"
    if len(values) > len(places) and not takes_all:
        return f"{what}: found {show(values[len(places)], _SHOWN)} without a name, expected name=value"
    missing = [each.name for each in places[len(values) :] if each.default is each.empty and each.name not in named]
    return f"{what} needs {', '.join(missing)}" if missing else None
