"""
The ticks of an axis of time: at moments that people count by, each with a short label.

Not here: the drawings along the axis (cli.draw, dashboard.drawing).
"""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class TimeTick:
    """A mark on an axis of time: the seconds since its begin, and the label."""

    seconds: float
    label: str


def time_ticks(seconds: float, most: float) -> list[TimeTick]:
    """
    Return the ticks of an axis, as dense as it has room for; the label of the last tick names the unit.

    Args:
        seconds: The length of the axis, above 0.
        most: The number of labels for which it has room.
    """
    step = next((each for each in _STEPS if each / seconds * most >= 1), seconds)
    unit_seconds, unit = _unit(seconds, step)
    # If the length is a whole number of steps, rounding must not remove the last tick.
    moments = [number * step for number in range(int(seconds / step * 1.000001) + 1)]
    labels = [f"{moment / unit_seconds:g}" for moment in moments]
    labels[-1] += f" {unit}"
    return [TimeTick(moment, label) for moment, label in zip(moments, labels, strict=True)]


def _unit(seconds: float, step: float) -> tuple[float, str]:
    """Return the largest unit that fits into the length and leaves the labels short."""
    for unit_seconds, unit, finest in _UNITS:
        # In floating point, a step of a tenth may be smaller than a tenth by the last bit.
        if seconds >= unit_seconds and step >= finest * 0.999:
            return unit_seconds, unit
    return _UNITS[-1][:2]
