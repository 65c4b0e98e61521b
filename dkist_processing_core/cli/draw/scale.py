"""
The time axis of a timeline: the conversion from times to cells, and the ticks below the axis.

Not here: the drawing along the axis (draw.timeline).
"""

from dataclasses import dataclass
from datetime import datetime

_STEPS = (
    *(digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)),
    *(10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600.0 * hours for hours in (1, 2, 3, 6, 12)),
    *(86400.0 * days for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
# Each unit with the finest step for which it is used: 0.1 s and 0.5 h are easy to read, 0.5 min is not.
_UNITS = (
    (86400.0, "d", 86400.0),
    (3600.0, "h", 1800.0),
    (60.0, "min", 60.0),
    (1.0, "s", 0.1),
    (0.001, "ms", 0.0),
)
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
        step = next((each for each in _STEPS if each / self.seconds * self.cells >= _LEAST_CELLS), self.seconds)
        unit_seconds, unit = self._unit(step)
        # If the span is a whole number of steps, rounding must not remove the last tick.
        moments = [number * step for number in range(int(self.seconds / step * 1.000001) + 1)]
        labels = [f"{moment / unit_seconds:g}" for moment in moments]
        labels[-1] += f" {unit}"
        cells = [min(self.cells - 1, round(moment / self.seconds * self.cells)) for moment in moments]
        return [Tick(cell, label) for cell, label in zip(cells, labels, strict=True)]

    def _unit(self, step: float) -> tuple[float, str]:
        """Return the largest unit that fits into the span and leaves the labels short."""
        for seconds, unit, finest in _UNITS:
            # In floating point, a step of a tenth may be smaller than a tenth by the last bit.
            if self.seconds >= seconds and step >= finest * 0.999:
                return seconds, unit
        return _UNITS[-1][:2]
