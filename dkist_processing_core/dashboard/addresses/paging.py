"""
A part of a long list, named by a parameter of the address.

Not here: the links to the other parts, which are templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.asked import Asked, PageError

_ItemT = TypeVar("_ItemT")
_MOST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Part(Generic[_ItemT]):
    """A part of a list, and where it is in it."""

    items: Sequence[_ItemT]
    first: int
    """The place of its first item in the list, from 0."""
    size: int
    total: int
    asked: Asked
    parameter: str
    anchor: str

    def address(self, first: int) -> str:
        """Return the address of the part that begins with an item."""
        return f"{address(self.asked.path, **{**self.asked.query, self.parameter: first})}#{self.anchor}"


def part_of(items: Sequence[_ItemT], asked: Asked, parameter: str, *, size: int, is_last: bool = False) -> Part[_ItemT]:
    """
    Return the part of a list that the address names.

    Args:
        items: The list.
        asked: What is asked for.
        parameter: The parameter with the place of the first item, and the anchor of the list on the page.
        size: The largest number of items in a part.
        is_last: Whether it is the last part if the address names none, otherwise it is the first.

    Raises:
        PageError: The parameter is not a whole number from 0.
    """
    text = asked.text(parameter)
    if text is None:
        first = max(0, (len(items) - 1) // size * size) if is_last else 0
    elif text.isascii() and text.isdecimal():
        first = min(int(text[:_MOST_DIGITS]), len(items))
    else:
        raise PageError(f"found {parameter}={text[:40]!r}, expected a whole number from 0")
    return Part(items[first : first + size], first, size, len(items), asked, parameter, parameter)
