"""
An exception as the fields of `TaskFailed`: what it was, what it said, where it came from.

Not here: redaction and cutting, which every event goes through on its way out.
"""

import hashlib
import json
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import TypedDict

from dkist_processing_core.events._model import Cause

_OWN_PACKAGE = __name__.partition(".")[0]
# Far above what an event can carry, far below what makes cleaning and redaction slow.
_MAX_CHARACTERS = 1024 * 1024


class Failure(TypedDict):
    """The fields of `TaskFailed` that an exception gives."""

    cause: Cause
    error_type: str
    message: str
    stack: str
    fingerprint: str


def describe(error: BaseException) -> Failure:
    """Return what an event says of `error`, however badly it behaves when asked."""
    error_type = _qualified_name(type(error))
    try:
        message = str(error)
    except BaseException as unprintable:  # noqa: BLE001 - an author's __str__ may raise anything, SystemExit too
        message = f"(its text cannot be had: __str__ raised {type(unprintable).__name__})"
    try:
        stack = "".join(traceback.format_exception(error))
    except BaseException as unprintable:  # noqa: BLE001 - as above: formatting calls the author's __str__ and __repr__
        stack = f"(its stack cannot be had: formatting raised {type(unprintable).__name__})"
    return Failure(
        cause=Cause.OUT_OF_MEMORY if isinstance(error, MemoryError) else Cause.EXCEPTION,
        error_type=error_type,
        message=message[:_MAX_CHARACTERS],
        stack=stack[-_MAX_CHARACTERS:],
        fingerprint=fingerprint(error_type, frames_of(error.__traceback__)),
    )


def _qualified_name(error_class: type) -> str:
    module = error_class.__module__
    return error_class.__qualname__ if module == "builtins" else f"{module}.{error_class.__qualname__}"


def frames_of(trace: TracebackType | None) -> list[str]:
    """Return the functions that an exception passed through, as `module:function`, the outermost first."""
    return [
        f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}" for frame, _ in traceback.walk_tb(trace)
    ]


def fingerprint(error_type: str, frames: Iterable[str]) -> str:
    """
    Return 16 hex digits that equal failures share: error type and functions passed through, without line numbers.

    Our own frames are left out, so that the way a task was started makes no difference; so is a function's further
    appearance, so that the depth of a recursion makes none.
    """
    foreign = [frame for frame in frames if frame.partition(":")[0].partition(".")[0] != _OWN_PACKAGE]
    return hashlib.sha256(json.dumps([error_type, *dict.fromkeys(foreign)]).encode()).hexdigest()[:16]
