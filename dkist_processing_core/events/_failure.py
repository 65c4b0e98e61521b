"""
An exception as the fields of `TaskFailed`: what it was, what it said, where it came from.

Not here: redaction and cutting, which every event goes through on its way out.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TypedDict

from dkist_processing_core.events._model import Cause
from dkist_processing_core.exception_text import frames_of, message_of, qualified_name, stack_of

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
    error_type = qualified_name(type(error))
    return Failure(
        # Not by isinstance, which asks the author's class for its `__class__`.
        cause=Cause.OUT_OF_MEMORY if issubclass(type(error), MemoryError) else Cause.EXCEPTION,
        error_type=error_type,
        message=message_of(error)[:_MAX_CHARACTERS],
        stack=stack_of(error)[-_MAX_CHARACTERS:],
        fingerprint=fingerprint(error_type, frames_of(error)),
    )


def fingerprint(error_type: str, frames: Iterable[str]) -> str:
    """
    Return 16 hex digits that equal failures share: error type and functions passed through, without line numbers.

    Our own frames are left out, so that the way a task was started makes no difference; so is a function's further
    appearance, so that the depth of a recursion makes none.
    """
    foreign = [frame for frame in frames if frame.partition(":")[0].partition(".")[0] != _OWN_PACKAGE]
    return hashlib.sha256(json.dumps([error_type, *dict.fromkeys(foreign)]).encode()).hexdigest()[:16]
