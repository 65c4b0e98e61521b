"""
The geometry of a timeline: the bar of each attempt on a common axis of time, and a band of its memory below it.

All places and widths along the axis are percentages of its length. Not here: the facts beside the bars
(one_run.rows), and the drawing itself, which is a template.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.events import Profile
from dkist_processing_core.runs import AttemptView, TaskView
from dkist_processing_core.runs.moments import Moments, Part
from dkist_processing_core.text.time_axis import time_ticks

_WHOLE = 100.0
_LEAST_WIDTH = 0.3
"""A part of an attempt that took any time is seen."""
_MOST_TICKS = 8
_SHORTEST_SECONDS = 0.001
_PHASES = ("pre_run", "run", "post_run")


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A mark on the axis with its label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of an attempt: a kind of `Part`, or the name of a phase."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Band:
    """The memory of an attempt over its time, as the points of an SVG polygon within 100 by 100."""

    x: float
    width: float
    points: str


@dataclass(frozen=True, slots=True)
class Lane:
    """The drawing of one attempt."""

    bars: tuple[Bar, ...]
    band: Band | None


class Timeline:
    """The axis of a run, and the lanes of its attempts on it."""

    def __init__(self, moments: Moments, most_memory: int) -> None:
        """
        Store what the lanes have in common.

        Args:
            moments: The times of the run.
            most_memory: The memory in bytes at which a band is full.
        """
        self._moments = moments
        self._most_memory = most_memory
        self.begin, self.end = moments.span
        self._seconds = max(_SHORTEST_SECONDS, (self.end - self.begin).total_seconds())

    @property
    def ticks(self) -> list[AxisTick]:
        """The ticks of the axis."""
        return [
            AxisTick(min(_WHOLE, each.seconds / self._seconds * _WHOLE), each.label)
            for each in time_ticks(self._seconds, _MOST_TICKS)
        ]

    def place(self, moment: datetime) -> float:
        """Return the place of a time on the axis."""
        return min(_WHOLE, max(0.0, (moment - self.begin).total_seconds() / self._seconds * _WHOLE))

    def lane(self, task: TaskView, attempt: AttemptView) -> Lane:
        """Return the lane of an attempt."""
        bars: list[Bar] = []
        band = None
        for stretch in self._moments.stretches(task, attempt):
            x, width = self._between(stretch.begin, stretch.end)
            phases = {} if attempt.end is None else attempt.end.phases
            if stretch.part is Part.RUNNING:
                bars += self._running(x, width, phases, (stretch.end - stretch.begin).total_seconds())
                band = self._band(attempt, x, width)
            else:
                bars.append(Bar(stretch.part, x, width))
        return Lane(tuple(bars), band)

    def _between(self, begin: datetime, end: datetime) -> tuple[float, float]:
        first, last = self.place(begin), self.place(end)
        width = max(_LEAST_WIDTH, last - first)
        return min(first, _WHOLE - width), width

    @staticmethod
    def _running(x: float, width: float, phases: Mapping[str, float], seconds: float) -> Iterator[Bar]:
        """Yield the bar of the process, and within it those of its phases, which follow each other."""
        yield Bar(Part.RUNNING, x, width)
        whole = max(seconds, sum(phases.get(name, 0.0) for name in _PHASES))
        if not 0 < whole < float("inf"):
            return
        at = x
        for name in _PHASES:
            share = phases.get(name, 0.0) / whole * width
            if share > 0:
                yield Bar(name, at, min(share, x + width - at))
                at += share

    def _band(self, attempt: AttemptView, x: float, width: float) -> Band | None:
        """Return the memory of an attempt by its profile; without one by its last sample, or None."""
        end, sample = attempt.end, attempt.sample
        if end is not None and end.profile:
            return Band(x, width, _outline(end.profile, self._most_memory))
        resources = None if end is not None or sample is None else sample.resources
        if resources is None or resources.rss is None:
            return None
        top = _WHOLE - _level(resources.rss, self._most_memory)
        return Band(x, width, f"0,100 0,{top:.1f} 100,{top:.1f} 100,100")


def _outline(profile: Profile, most: int) -> str:
    last = max(point[0] for point in profile) or 1.0
    points = [(point[0] / last * _WHOLE, _WHOLE - _level(point[1], most)) for point in sorted(profile)]
    outline: Sequence[tuple[float, float]] = [(0.0, _WHOLE), (0.0, points[0][1]), *points, (points[-1][0], _WHOLE)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)


def _level(count: int, most: int) -> float:
    return min(1.0, count / most) * _WHOLE if most else 0.0


def most_memory_of(attempts: Sequence[AttemptView]) -> int:
    """Return the largest memory in bytes that bands of these attempts show."""
    ends = [attempt.end for attempt in attempts if attempt.end is not None and attempt.end.profile]
    in_profiles = [point[1] for end in ends for point in end.profile or ()]
    samples = [attempt.sample.resources for attempt in attempts if attempt.end is None and attempt.sample is not None]
    return max((*in_profiles, *(each.rss for each in samples if each is not None and each.rss is not None)), default=0)
