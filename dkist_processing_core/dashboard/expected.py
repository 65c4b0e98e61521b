"""
When a run is expected to end, by how long earlier successful attempts of its remaining tasks took.

A pure function of the run and of these durations. Each remaining task is taken to begin when its upstream tasks end,
and to wait, to prepare and to run as long as earlier attempts did. Not here: reading the earlier attempts (collect).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter

from dkist_processing_core.collect.overview import EarlierAttempt
from dkist_processing_core.dashboard.nodes import tasks_by_node
from dkist_processing_core.events import Graph
from dkist_processing_core.runs import RunView, TaskView

LEAST_ATTEMPTS = 3
"""A task with fewer earlier successful attempts has no expected duration."""
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
_LONGEST_SECONDS = 400 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected end of a run."""

    at: datetime
    """If each remaining task takes as long as the median of its earlier attempts."""
    earliest: datetime
    latest: datetime
    """If each takes as long as the tenth part of them at most, and as nine tenths of them at most."""
    attempts: int
    """The number of earlier attempts of the remaining task that has the fewest."""
    tasks: int
    """The number of remaining tasks."""
    is_longer_than_ever: bool
    """Whether an attempt runs longer than each earlier one of its task; it is taken to end now."""


def remaining_tasks(view: RunView) -> dict[str, list[TaskView]]:
    """
    Return the tasks of a run that goes on which have not ended, by their nodes in its graph.

    An attempt that has failed counts as the last one: no report has announced another one yet.
    """
    if view.state.is_end:
        return {}
    by_node = {
        node: [task for task in tasks if not task.state.is_end] for node, tasks in tasks_by_node(view).nodes.items()
    }
    return {node: tasks for node, tasks in by_node.items() if tasks}


def expected_end(view: RunView, earlier: Mapping[str, Sequence[EarlierAttempt]], now: datetime) -> Expected | None:
    """
    Return the expected end of a run; None without a graph, for a run that is over, or with too few earlier attempts.

    Args:
        view: The run.
        earlier: The earlier successful attempts of each node with remaining tasks.
        now: The present.
    """
    remaining = remaining_tasks(view)
    if view.graph is None or not remaining:
        return None
    usable = {node: [each for each in earlier.get(node, ()) if _is_usable(each)] for node in remaining}
    fewest = min(map(len, usable.values()))
    order = _in_order(view.graph, remaining)
    if fewest < LEAST_ATTEMPTS or order is None:
        return None
    courses = {node: [_course(task, usable[node], now) for task in tasks] for node, tasks in remaining.items()}
    ends = []
    for share in (LOW, MIDDLE, HIGH):
        seconds: dict[str, float] = {}
        for node, upstreams in order:
            begin = max((seconds[each] for each in upstreams), default=0.0)
            seconds[node] = begin + max(course.left(share) for course in courses[node])
        ends.append(_later(now, max(seconds.values())))
    return Expected(
        at=ends[1],
        earliest=ends[0],
        latest=ends[2],
        attempts=fewest,
        tasks=sum(map(len, remaining.values())),
        is_longer_than_ever=any(not course.seconds_left for of_node in courses.values() for course in of_node),
    )


def _is_usable(attempt: EarlierAttempt) -> bool:
    """Return True if an attempt can have taken that long."""
    return all(0 <= seconds <= _LONGEST_SECONDS for seconds in (attempt.waiting_seconds, attempt.working_seconds))


def _in_order(graph: Graph, nodes: Iterable[str]) -> list[tuple[str, list[str]]] | None:
    """Return nodes with their upstreams, each after these; None if they form a circle."""
    upstreams: dict[str, list[str]] = {node: [] for node in nodes}
    for upstream, node in graph.edges:
        if upstream in upstreams and node in upstreams:
            upstreams[node].append(upstream)
    try:
        return [(node, upstreams[node]) for node in TopologicalSorter(upstreams).static_order()]
    except CycleError:
        return None


@dataclass(frozen=True, slots=True)
class _Course:
    """How long a task goes on if it takes as long as each earlier attempt that took longer than it has by now."""

    seconds_left: Sequence[float]
    """In ascending order; empty if it has taken longer than all."""

    def left(self, share: float) -> float:
        """Return for how many seconds it goes on, by this share of the earlier attempts."""
        number = len(self.seconds_left)
        return self.seconds_left[min(number - 1, int(share * number))] if number else 0.0


def _course(task: TaskView, earlier: Sequence[EarlierAttempt], now: datetime) -> _Course:
    if not task.attempts:
        return _Course(sorted(each.waiting_seconds + each.working_seconds for each in earlier))
    began = task.attempts[-1].dispatched_at or task.attempts[-1].started_at
    elapsed = 0.0 if began is None else max(0.0, (now - began).total_seconds())
    return _Course(sorted(each.working_seconds - elapsed for each in earlier if each.working_seconds >= elapsed))


def _later(now: datetime, seconds: float) -> datetime:
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=now.tzinfo)
