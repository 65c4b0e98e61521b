"""
The time axis of a timeline: the conversion from times to cells, and the ticks below the axis.

Not here: the moments of the ticks (text.time_axis), and the drawing along the axis (draw.timeline).
"""

from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.text.time_axis import time_ticks

_LEAST_CELLS = 7


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis: its cell, and the label below it."""

    cell: int
    label: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The time span of `seconds` after `begin`, mapped to `cells`."""

    begin: datetime
    seconds: float
    cells: int

    def half(self, moment: datetime) -> int:
        """Return the half cell of a time, since bars begin and end at half cells."""
        share = (moment - self.begin).total_seconds() / self.seconds
        return max(0, min(2 * self.cells, round(share * 2 * self.cells)))

    @property
    def ticks(self) -> list[Tick]:
        """The ticks, as dense as their labels allow; the label of the last tick names the unit."""
        return [
            Tick(min(self.cells - 1, round(tick.seconds / self.seconds * self.cells)), tick.label)
            for tick in time_ticks(self.seconds, self.cells / _LEAST_CELLS)
        ]
