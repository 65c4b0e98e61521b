"""
A place that keeps dead letters, and what an operator can do with them there.

Not here: the places themselves (in_inbox, in_journal, in_queue).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dkist_processing_core.dead_letters.letter import DeadLetter, Group


class Action(StrEnum):
    """What an operator does with dead letters."""

    RETRY = "retry"
    """Have them handled once more."""
    DISCARD = "discard"
    """Remove them for good."""
    ARCHIVE = "archive"
    """Put them away until they are restored."""
    RESTORE = "restore"
    """Bring archived ones back."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of an action."""

    count: int = 0
    obstacles: dict[str, str] = field(default_factory=dict)
    """Why letters were left as they are, by their ids."""


class Place(Protocol):
    """One place; its letters and groups have ids that no other place has."""

    where: str
    """The place, as a message names it."""

    def consumers(self) -> Collection[str]:
        """Return the names of the consumers that it knows, also without dead letters."""

    def groups(self, *, archived: bool) -> list[Group]:
        """Return the groups, that with the newest failure first."""

    def letters(self, group: str, *, archived: bool, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters of a group, that which failed last first."""

    def letter(self, name: str) -> DeadLetter | None:
        """Return the letter of this id, dead or archived; None if there is none here."""

    def known(self, names: Collection[str]) -> set[str]:
        """Return those of the ids that name a letter or a group here, dead or archived."""

    def change(self, action: Action, names: Collection[str]) -> Changed:
        """Do something with the letters and groups of these ids, or without ids with all."""


def concerns(action: Action, names: Collection[str], letter: str, group: str, *, is_archived: bool) -> bool:
    """
    Return True if an action on these letters and groups, or without names on all, changes a letter.

    Args:
        action: The action.
        names: The ids of letters and groups.
        letter: The id of the letter.
        group: That of its group.
        is_archived: Whether it is archived.
    """
    is_named = letter in names
    if names and not is_named and group not in names:
        return False
    if is_archived and is_named and action is not Action.ARCHIVE:
        return True
    # Of a group or of all, archived letters are only restored.
    return is_archived == (action is Action.RESTORE)
