"""
The kinds of values that a field of an event may hold, with their bounds, and the treatment of their text.

A field is declared once: `name: Annotated[KIND | None, about("its meaning")] = None`. Schemas, the reference page,
the checks and the tests' strategies are derived from that. Not here: the fields themselves (facts).
"""

import contextlib
import sys
from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, inspect

from dkist_processing_core.identity import MAX_NUMBER
from dkist_processing_core.text import clean

FREE_TEXT = "free_text"
LINE = "line"
CUTS = "cuts"
LIMIT = "limit"
MAX_CAUSE = 100


def prepare(kind: type) -> None:
    """
    Make msgspec collect what it knows about a class now, while no other thread has the class.

    It does that at the first use, and publishes the result before it is complete: a thread that uses the class in
    between ends the process with a segmentation fault (msgspec 0.22).
    """
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(None, kind)


class Reporter(StrEnum):
    """Which process reports; each observes facts that the others cannot."""

    TASK = "task"
    LAUNCHER = "launcher"
    ENGINE = "engine"
    WATCHER = "watcher"


class Cause(StrEnum):
    """Why an attempt failed, the least specific first: where reports agree on a failure, the later member wins."""

    LOST = "lost"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TERMINATED = "terminated"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    EXCEPTION = "exception"
    ENVIRONMENT = "environment"
    CONFIGURATION = "configuration"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Keep a cause that a later release has added: it behaves as a member, but is not in the list of members."""
        if not isinstance(value, str) or len(value) > MAX_CAUSE:
            return None
        text = clean(value)
        unknown = str.__new__(cls, text)
        unknown._name_ = unknown._value_ = text
        return unknown


for _enumeration in (Reporter, Cause):
    prepare(_enumeration)


class Cut(IntEnum):
    """The order in which fields are shortened so that an event fits the bus."""

    LOG = 1
    THREADS = 2
    """Of the stacks of several threads, all but the first."""
    PROFILE = 3
    THREAD = 4
    """The stack of the first thread."""
    STACK = 5
    MESSAGE = 6
    NOTE = 7
    STATES = 8
    GRAPH = 9


def about(description: str, *cuts: Cut, limit: int | None = None) -> Meta:
    """
    Return what else is declared of a field.

    Args:
        description: Its meaning, for schema and reference page.
        cuts: When it is shortened so that the event fits the bus; without one it is left out at last.
        limit: The most bytes that it takes in an event that is published.
    """
    return Meta(description=description, extra={CUTS: cuts, LIMIT: limit} if cuts else None)


_MAX_FLOAT = sys.float_info.max
# Text that people, exceptions and engines write is redacted. Names are not.
FreeText = Annotated[str, Meta(extra={FREE_TEXT: True})]
# An attribute of a CloudEvent, which may hold neither newline nor tab.
Line = Annotated[str, Meta(extra={LINE: True})]
UtcTime = Annotated[datetime, Meta(tz=True)]
# The bounds exclude infinity and NaN, which JSON does not have.
Amount = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
Seconds = Amount
# Whole numbers have 64 bits, as in consumers' databases and languages.
Whole = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Whole | Annotated[float, Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)]
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Ordinal = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Withdrawn = Annotated[
    bool | None,
    about("True if the event withdraws the alarm; else omitted."),
    Meta(extra_json_schema={"const": True}),
]


def kinds_of(info: inspect.Type) -> tuple[list[inspect.Type], dict[str, Any]]:
    """Return the kinds of values that a field takes, except None, and the marks of its annotations, at any depth."""
    match info:
        case inspect.Metadata(type=inner, extra=extra):
            kinds, marks = kinds_of(inner)
            return kinds, marks | (extra or {})
        case inspect.UnionType(types=types):
            each = [kinds_of(part) for part in types]
            return [kind for kinds, _ in each for kind in kinds], _joined(marks for _, marks in each)
        case inspect.NoneType():
            return [], {}
        case inspect.DictType(value_type=inner) | inspect.VarTupleType(item_type=inner):
            return [info], kinds_of(inner)[1]
        case inspect.TupleType(item_types=types):
            return [info], _joined(kinds_of(part)[1] for part in types)
    return [info], {}


def _joined(marks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for each in marks for name, value in each.items()}


def has_text(info: inspect.Type) -> bool:
    """Return True if a kind of values holds text at any depth, except members of an enumeration."""
    match info:
        case inspect.StrType():
            return True
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            return has_text(inner)
        case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
            return any(map(has_text, types))
        case inspect.DictType(key_type=key, value_type=value):
            return has_text(key) or has_text(value)
        case inspect.StructType(fields=fields):
            return any(has_text(field.type) for field in fields)
    return False
