"""
Small charts of counts: columns over time, and the shares of a whole as one bar.

Not here: the counts (collect), and the SVG around the coordinates, which is in templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dkist_processing_core.runs import State

_ROOM = 0.15
# The parts of the bar of a run, from left to right.
_TASKS = (State.FINISHED, State.SKIPPED, State.FAILED, State.NOT_RUN, State.RUNNING, State.DISPATCHED, State.WAITING)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; y grows downwards."""

    kind: str
    """What it counts, which decides its colour."""
    x: float
    y: float
    width: float
    height: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The rectangles of a chart, all within its width and height."""

    bars: tuple[Bar, ...]
    width: float
    height: float
    largest: int = 0
    """The count that has the whole height."""


def columns(
    counts: Sequence[Mapping[str, int]],
    *,
    titles: Sequence[str] = (),
    height: float = 20.0,
    step: float = 4.0,
    largest: int | None = None,
) -> Columns:
    """
    Return stacked columns, one for each element in its order, from left to right.

    Args:
        counts: The counts of each column by their kinds; the first kind is at the bottom.
        titles: The text of each column.
        height: The height of the chart.
        step: The width of a column with the room beside it.
        largest: The sum that has the whole height; by default the largest one.
    """
    top = max((sum(each.values()) for each in counts), default=0) if largest is None else largest
    bars = []
    for number, each in enumerate(counts):
        below = height
        for kind, count in each.items():
            if count and top:
                size = min(below, count / top * height)
                below -= size
                left = number * step + step * _ROOM / 2
                title = titles[number] if titles else ""
                bars.append(Bar(kind, round(left, 3), round(below, 3), step * (1 - _ROOM), round(size, 3), title))
    return Columns(tuple(bars), len(counts) * step or step, height, top)


def shares(counts: Mapping[str, int], *, width: float = 100.0, height: float = 4.0) -> Columns:
    """Return the shares of a whole as rectangles side by side, in the order of their kinds."""
    whole, bars, left = sum(counts.values()), [], 0.0
    for kind, count in counts.items():
        if count:
            size = count / whole * width
            bars.append(Bar(kind, round(left, 3), 0.0, round(size, 3), height, f"{count} {kind}"))
            left += size
    return Columns(tuple(bars), width, height, whole)


def bar_of_tasks(tasks: Mapping[State, int]) -> Columns:
    """Return the shares of the states of a run's tasks; its `largest` is the number of the tasks."""
    return shares({state.value: tasks.get(state, 0) for state in _TASKS})
