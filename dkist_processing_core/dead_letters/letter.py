"""
A dead letter, and a group of dead letters with the same failure, wherever they are kept.

Not here: the places (in_inbox, in_journal, in_queue).
"""

import hashlib
import heapq
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, decode

# Values in a reason: quoted texts, and words with a digit. Reasons that differ only in them are the same failure.
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b\w*\d\w*\b")
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class FormerFailure:
    """How a dead letter failed before it was retried; times are in seconds since 1970."""

    reason: str
    failed_at: float | None
    retried_at: float | None
    error_type: str | None = None
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; times are in seconds since 1970."""

    id: str
    """Names it in commands; its first letter names the kind of its place."""
    group: str
    """The id of its group."""
    consumer: str
    is_archived: bool
    reason: str
    """Why it is dead, in one sentence."""
    event: Event | None
    """None if the message is no event for this release."""
    body: bytes
    content_type: str | None
    headers: Mapping[str, Any]
    first_failed_at: float | None
    last_failed_at: float | None
    tries: int | None = None
    """How often handlers have failed; None where there are none."""
    error_type: str | None = None
    error_message: str | None = None
    stack: str | None = None
    history: tuple[FormerFailure, ...] = ()
    """Its earlier failures, the oldest first."""
    full_size: int | None = None
    """The size of the whole body, if `body` is only its beginning."""
    obstacle: str | None = None
    """Why it cannot be retried; None if it can."""


@dataclass(frozen=True, slots=True)
class Group:
    """The dead letters of one consumer that failed in the same way."""

    id: str
    consumer: str
    count: int
    first_failed_at: float | None
    last_failed_at: float | None
    newest: DeadLetter


def digest(*parts: object) -> str:
    """Return digits by which a letter or a group is named, equal in each process."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="replace")).hexdigest()[:_DIGITS]


def family_of_reason(reason: str) -> str:
    """
    Return what reasons of the same kind have in common.

    >>> family_of_reason("attempt is 'x', expected 1") == family_of_reason("attempt is 'y', expected 2")
    True
    """
    return _VALUES.sub("*", reason)


def event_of(body: bytes, content_type: str | None, headers: Mapping[str, Any]) -> Event | None:
    """Return the event of a message; None if it is no event for this release."""
    try:
        return decode(body, content_type, headers)
    except DecodeError:
        return None


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return the groups of letters, that with the newest failure first. Only the newest letter of each is kept."""
    found: dict[str, Group] = {}
    for letter in letters:
        at = letter.last_failed_at
        before = found.get(letter.group)
        if before is None:
            found[letter.group] = Group(letter.group, letter.consumer, 1, letter.first_failed_at, at, letter)
            continue
        known = [each for each in (before.first_failed_at, letter.first_failed_at) if each is not None]
        # Of those that failed at the same time, the last one in its place is the newest.
        newest = letter if (at or 0.0) >= (before.last_failed_at or 0.0) else before.newest
        found[letter.group] = Group(
            letter.group,
            letter.consumer,
            before.count + 1,
            min(known, default=None),
            newest.last_failed_at,
            newest,
        )
    return latest_first(found.values())


def latest_first(groups: Iterable[Group]) -> list[Group]:
    """Return groups, that with the newest failure first."""
    return sorted(groups, key=lambda group: group.last_failed_at or 0.0, reverse=True)


def newest(letters: Iterable[DeadLetter], limit: int) -> list[DeadLetter]:
    """Return the newest of letters that are in the order of their place, that which failed last first."""
    numbered = ((letter.last_failed_at or 0.0, place, letter) for place, letter in enumerate(letters))
    return [letter for _, _, letter in heapq.nlargest(limit, numbered)]
