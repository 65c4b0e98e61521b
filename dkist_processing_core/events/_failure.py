"""
An exception as the fields of `TaskFailed`: what it was, what it said, where it came from.

Not here: redaction and cutting to size, which every event goes through on its way out.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TypedDict

from dkist_processing_core.events._kinds import Cause
from dkist_processing_core.exception_text import frames_of, message_of, qualified_name, stack_of
from dkist_processing_core.redaction import redact

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
        message=_shortened(message_of(error)),
        stack=_shortened(stack_of(error), keep_end=True),
        fingerprint=fingerprint(error_type, frames_of(error)),
    )


def _shortened(text: str, *, keep_end: bool = False) -> str:
    """Return a part of a long text, which is redacted before: half of a secret is not known as one."""
    if len(text) <= _MAX_CHARACTERS:
        return text
    # Twice as much, for what redaction makes shorter.
    parts = slice(-2 * _MAX_CHARACTERS, None), slice(-_MAX_CHARACTERS, None)
    wider, part = parts if keep_end else (slice(2 * _MAX_CHARACTERS), slice(_MAX_CHARACTERS))
    return redact(text[wider])[part]


def fingerprint(error_type: str, frames: Iterable[str]) -> str:
    """
    Return 16 hex digits that equal failures share: error type and functions passed through, without line numbers.

    Our own frames are left out, so that the way a task was started makes no difference; so is a function's further
    appearance, so that the depth of a recursion makes none.
    """
    foreign = [frame for frame in frames if frame.partition(":")[0].partition(".")[0] != _OWN_PACKAGE]
    return hashlib.sha256(json.dumps([error_type, *dict.fromkeys(foreign)]).encode()).hexdigest()[:16]
