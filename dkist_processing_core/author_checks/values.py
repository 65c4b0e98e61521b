"""
The values of an author in one form, and the one-sentence error for a wrong value.

A mistake is reported at the call that contains it, not at the export and not on a worker. Not here: the rules for names
(names) and for tasks (tasks).
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.text import show

SHOWN = 120
"""The length in characters to which a message cuts a value."""


def text_of(value: object, argument: str) -> str | None:
    """
    Return a part of a name as a plain `str`, or None if it is not given.

    Raises:
        WorkflowError: The value is not a string.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(f"{argument} is {show(value, SHOWN)}, expected a string")
    # A member of a string enumeration is also a `str`, but its str() may differ.
    return str.__str__(value)


def in_fixed_order(given: Iterable[Any]) -> Iterable[Any]:
    """Return an author's items in the order given; sort a set, whose order differs from process to process."""
    return (
        sorted(given, key=lambda each: getattr(each, "__name__", show(each, SHOWN)))
        if isinstance(given, AbstractSet)
        else given
    )


def refuse(msg: str, note: str | None = None) -> NoReturn:
    """
    Raise the error for a wrong value.

    Raises:
        WorkflowError: Always, with this message, and with a note below it if one is given.
    """
    error = WorkflowError(msg)
    if note is not None:
        error.add_note(note)
    raise error
