"""
The kinds of values that a field of an event may hold, with their bounds, and what is done to their text.

A field is declared once: `name: Annotated[KIND | None, about("what it states")] = None`. Schemas, the reference page,
the checks and the tests' strategies follow from that. Not here: the fields themselves (facts).
"""

import sys
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Self

from msgspec import Meta

from dkist_processing_core.identity import MAX_NUMBER
from dkist_processing_core.text import clean

FREE_TEXT = "free_text"
CUT = "cut"
MAX_CAUSE = 100


class Reporter(StrEnum):
    """Which process reports; each observes what the others cannot."""

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
        """Keep a cause that a later release has added: it is a member in all but the list of members."""
        if not isinstance(value, str) or len(value) > MAX_CAUSE:
            return None
        text = clean(value)
        unknown = str.__new__(cls, text)
        unknown._name_ = unknown._value_ = text
        return unknown


class Cut(IntEnum):
    """The order in which fields are shortened so that an event fits the bus."""

    STACK = 1
    MESSAGE = 2
    NOTE = 3
    STATES = 4
    GRAPH = 5


def about(description: str, cut: Cut | None = None) -> Meta:
    """Return what a field states, for schema and reference page, and when it is cut; None: after those that are."""
    return Meta(description=description, extra=None if cut is None else {CUT: cut})


_MAX_FLOAT = sys.float_info.max
# What people, exceptions and engines write: it is redacted. Names are not.
FreeText = Annotated[str, Meta(extra={FREE_TEXT: True})]
UtcTime = Annotated[datetime, Meta(tz=True)]
# The bounds exclude infinity and NaN, which JSON does not have.
Seconds = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
# Whole numbers are those of 64 bits, as consumers' databases and languages have them.
Whole = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Whole | Annotated[float, Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)]
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Ordinal = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
