"""
The geometry of what an attempt used over its time: one curve for each kind of use, above one axis of time.

Places are within a box of `WIDTH` by `HEIGHT`. Not here: the drawing itself, which is a template.
"""

from dataclasses import dataclass

from dkist_processing_core.events import Profile
from dkist_processing_core.runs.wording.usage import KINDS_OF_USE
from dkist_processing_core.text.time_axis import time_ticks

WIDTH, HEIGHT = 600.0, 72.0
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """One kind of use: the points of an SVG line and of the area below it, and its largest value as text."""

    name: str
    line: str
    area: str
    most: str


@dataclass(frozen=True, slots=True)
class PlotTick:
    """A mark on the axis of time with its label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The curves, and their common axis."""

    curves: tuple[Curve, ...]
    ticks: tuple[PlotTick, ...]


def plot_of(profile: Profile) -> Plot | None:
    """Return the plot of a profile; what was never used has no curve, and without any use and time there is none."""
    points = sorted(profile)
    seconds = max((point[0] for point in points), default=0.0)
    if seconds <= 0:
        return None
    curves = []
    for place, (name, text_of) in enumerate(KINDS_OF_USE, 1):
        values = [float(point[place]) for point in points]
        most = max(values)
        if most <= 0:
            continue
        places = [
            (point[0] / seconds * WIDTH, HEIGHT - value / most * HEIGHT)
            for point, value in zip(points, values, strict=True)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        area = f"{places[0][0]:.1f},{HEIGHT:.1f} {line} {places[-1][0]:.1f},{HEIGHT:.1f}"
        curves.append(Curve(name, line, area, text_of(most)))
    ticks = tuple(
        PlotTick(min(WIDTH, each.seconds / seconds * WIDTH), each.label) for each in time_ticks(seconds, _MOST_TICKS)
    )
    return Plot(tuple(curves), ticks) if curves else None
