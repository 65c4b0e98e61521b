"""
The chart of a workflow's versions: the duration of each run, the median of each version, and the share that failed.

Not here: the texts and colours, which are in the template, and the values (analysis.versions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkist_processing_core.dashboard.analysis.versions import Version

SLOT = 64.0
"""The width of a version."""
LEFT, TOP = 72.0, 34.0
"""The room for the labels of the axis, and for the two marks of a version above the chart."""
HEIGHT = 180.0
"""The height of the durations."""
GAP = 12.0
SHARE_HEIGHT = 40.0
"""The height of the share of failed runs, which is below the durations."""
BOTTOM = 24.0
"""The room for the names of the versions."""
_INSET = 8.0
_MOST_TICKS = 5
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of the axis of durations."""

    y: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Slot:
    """What is drawn of one version."""

    x: float
    """Its left side."""
    middle: float
    version: Version
    points: tuple[tuple[float, float], ...]
    """A point for each run that finished, in the order in which they began."""
    median_y: float | None
    box: tuple[float, float] | None
    """The upper end and the height of the box between the quartiles."""
    share_y: float
    share_height: float
    """The bar of the share of failed runs."""


@dataclass(frozen=True, slots=True)
class VersionsChart:
    """The whole chart."""

    width: float
    height: float
    ticks: tuple[Tick, ...]
    slots: tuple[Slot, ...]
    base: float
    """The y of no duration."""
    share_base: float
    """The y of no failures."""


def versions_chart(versions: Sequence[Version]) -> VersionsChart:
    """Return the chart of versions, which are drawn from left to right in the order given."""
    longest = max((seconds for version in versions for seconds in version.durations), default=0.0)
    step = _step(longest)
    # The axis ends with a tick, so that the longest run has its point below it.
    top = step * max(1, -(-longest // step))
    base = TOP + HEIGHT
    share_base = base + GAP + SHARE_HEIGHT

    def y_of(seconds: float) -> float:
        return base - HEIGHT * seconds / top

    slots = []
    for place, version in enumerate(versions):
        x = LEFT + place * SLOT
        between = (SLOT - 2 * _INSET) / max(1, len(version.durations))
        points = tuple(
            (x + _INSET + (index + 0.5) * between, y_of(seconds)) for index, seconds in enumerate(version.durations)
        )
        quartiles, median = version.quartiles, version.median
        share = SHARE_HEIGHT * (version.failure_rate or 0.0)
        slots.append(
            Slot(
                x,
                x + SLOT / 2,
                version,
                points,
                None if median is None else y_of(median),
                None if quartiles is None else (y_of(quartiles[1]), y_of(quartiles[0]) - y_of(quartiles[1])),
                share_base - share,
                share,
            )
        )
    ticks = tuple(Tick(y_of(step * count), step * count) for count in range(round(top / step) + 1))
    return VersionsChart(LEFT + len(versions) * SLOT, share_base + BOTTOM, ticks, tuple(slots), base, share_base)


def _step(longest: float) -> float:
    """Return the distance of two labels: a round time with at most five of them."""
    for step in _STEPS:
        if longest <= step * _MOST_TICKS:
            return float(step)
    days = _STEPS[-1]
    return float(days * -(-longest // (days * _MOST_TICKS)))
