"""
The bars of a column of changes, which grow to the left for less and to the right for more.

Not here: the texts beside them, which are in the templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100.0
"""The width of the column, whose middle is no change."""
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class ChangeBar:
    """A bar within 0 and `WIDTH`."""

    x: float
    width: float
    is_more: bool


def change_bars(changes: Sequence[float]) -> list[ChangeBar]:
    """
    Return a bar for each change; the largest change reaches the end of its side.

    A change that is not 0 has a bar of at least one unit, so that its side is seen.
    """
    most = max((abs(change) for change in changes), default=0.0)
    middle = WIDTH / 2
    bars = []
    for change in changes:
        width = max(_LEAST, abs(change) / most * middle) if change else 0.0
        bars.append(ChangeBar(middle if change >= 0 else middle - width, width, change > 0))
    return bars
