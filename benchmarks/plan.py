"""The amount of measuring: rounds, and the size of each run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Plan:
    """The request on the command line."""

    rounds: int = 5
    scale: float = 1.0

    def count(self, full: int, least: int = 20) -> int:
        """Return the scaled number for `full` messages."""
        return max(least, round(full * self.scale))

    def turns(self, items: Sequence[_Item]) -> Iterator[_Item]:
        """Yield all items in each round, each time beginning with another one, so that the first place rotates."""
        for number in range(self.rounds):
            first = number % len(items)
            yield from (*items[first:], *items[:first])
