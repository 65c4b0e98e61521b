"""
The rows of a journal as values: entries, set-aside messages, books, and how damaged or edited columns are read.

Not here: the queries (_journal).
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dkist_processing_core.events import MAX_BODY_BYTES
from dkist_processing_core.journal.message import EXCERPT_BYTES, Message, Properties

COLUMNS = "seq, exchange, routing_key, body, properties"
EXCERPT_COLUMNS = (
    "seq, exchange, routing_key,"
    f" CASE WHEN length(body) <= {MAX_BODY_BYTES} THEN body ELSE substr(body, 1, {EXCERPT_BYTES}) END,"
    f" properties, CASE WHEN length(body) > {MAX_BODY_BYTES} THEN length(body) END"
)
"""The same columns as `COLUMNS`, with an excerpt of a body that is too large, and its full size."""
# In seconds since 1970 this is in the year 9892.
_LATEST = 250e9


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message and its sequence number in the journal."""

    seq: int
    message: Message


class SetAside(Entry, frozen=True, gc=False):
    """A message that the broker refused repeatedly; times are in seconds since 1970."""

    appended: float
    refused: float | None
    """Time of the last refusal; None if an older release did not record it."""
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Books:
    """
    The counts of all appended messages by state: published = confirmed + pending + set aside.

    Messages that another journal has taken over (`take_over`) count in the books of that journal.
    """

    published: int
    confirmed: int
    pending: int
    set_aside: int


def to_entries(rows: Iterable[Sequence[Any]]) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Return the readable rows as messages, and the number and the reason of each unreadable row."""
    entries, unreadable = [], []
    for seq, exchange, key, body, properties in rows:
        try:
            message = Message(exchange, key, _as_bytes(body), Properties.from_json(properties))
            entries.append(Entry(seq, message))
        except (TypeError, ValueError) as error:
            unreadable.append((seq, str(error)))
    return entries, unreadable


def to_entry(row: Sequence[Any]) -> Entry:
    """Return a row as a message, with empty properties if they cannot be read."""
    seq, exchange, key, body, properties, full_size = row
    return Entry(seq, Message(str(exchange), str(key), _as_bytes(body), readable(properties), full_size))


def to_set_aside(row: Sequence[Any]) -> SetAside:
    """Return a row of a set-aside message; columns that cannot be read get an empty value."""
    *columns, appended, refused, tries, reason = row
    entry = to_entry(columns)
    return SetAside(
        entry.seq,
        entry.message,
        appended=number(appended) or 0.0,
        refused=number(refused),
        tries=int(number(tries) or 0),
        reason=str(reason),
    )


def to_runs(numbers: Sequence[int]) -> list[list[int]]:
    """Return sorted numbers in runs without a gap."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and each <= runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return runs


def _as_bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def number(value: object) -> float | None:
    """Return a stored number; None if the value is not a number, or is too large for a time of the calendar."""
    is_number = isinstance(value, int | float) and abs(value) < _LATEST
    return float(value) if is_number else None  # type: ignore[arg-type]


def readable(properties: str) -> Properties:
    """Return stored properties, or empty ones if they cannot be read or hold other values than texts."""
    with contextlib.suppress(TypeError, ValueError):
        found = Properties.from_json(properties)
        if isinstance(found.message_id, str) and isinstance(found.type, str | None):
            return found
    return Properties(message_id="", content_type="")
