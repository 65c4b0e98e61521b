"""
An exception as the fields of `TaskFailed`: its class, its message and its origin.

Not here: redaction and shortening, which apply to every published event.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TypedDict

from dkist_processing_core.events._kinds import Cause
from dkist_processing_core.text.exception_text import frames_of, message_of, qualified_name, stack_of
from dkist_processing_core.text.redaction import redact

_OWN_PACKAGE = __name__.partition(".")[0]
# This is far above the size of an event, and far below the size at which cleaning and redaction are slow.
_MAX_CHARACTERS = 1024 * 1024


class Failure(TypedDict):
    """The fields of `TaskFailed` that an exception gives."""

    cause: Cause
    error_type: str
    message: str
    stack: str
    fingerprint: str


def describe(error: BaseException) -> Failure:
    """Return the fields of an event that describe `error`, however badly its methods behave."""
    error_type = qualified_name(type(error))
    return Failure(
        # isinstance is not used: it reads `__class__` from the author's class.
        cause=Cause.OUT_OF_MEMORY if issubclass(type(error), MemoryError) else Cause.EXCEPTION,
        error_type=error_type,
        message=_shortened(message_of(error)),
        stack=_shortened(stack_of(error), keep_end=True),
        fingerprint=family_of(error),
    )


def family_of(error: BaseException) -> str:
    """Return the fingerprint of an exception."""
    return fingerprint(qualified_name(type(error)), frames_of(error))


def _shortened(text: str, *, keep_end: bool = False) -> str:
    """Return a part of a long text, redacted before it is cut: half of a secret is not recognised as one."""
    if len(text) <= _MAX_CHARACTERS:
        return text
    # Twice as much, since redaction may shorten the text.
    parts = slice(-2 * _MAX_CHARACTERS, None), slice(-_MAX_CHARACTERS, None)
    wider, part = parts if keep_end else (slice(2 * _MAX_CHARACTERS), slice(_MAX_CHARACTERS))
    return redact(text[wider])[part]


def fingerprint(error_type: str, frames: Iterable[str]) -> str:
    """
    Return 16 hex digits that equal failures share: error type and functions passed through, without line numbers.

    Our own frames are left out, so that the way a task was started makes no difference. Further appearances of a
    function are left out too, so that the depth of a recursion makes no difference.
    """
    foreign = [frame for frame in frames if frame.partition(":")[0].partition(".")[0] != _OWN_PACKAGE]
    return hashlib.sha256(json.dumps([error_type, *dict.fromkeys(foreign)]).encode()).hexdigest()[:16]


def family_by(*alike: object) -> str:
    """Return 16 hex digits that failures without an exception share if these facts of them are equal."""
    return hashlib.sha256(json.dumps(alike).encode()).hexdigest()[:16]
