"""
When a run is expected to end, by how long earlier successful attempts of its remaining tasks took.

A pure function of the run and of these durations. Each remaining task is taken to begin when its upstream tasks end,
and to wait, to prepare and to run as long as earlier attempts did. Not here: reading the earlier attempts (collect).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from dkist_processing_core.collect.questions.overview import EarlierAttempt
from dkist_processing_core.dashboard.analysis.nodes import tasks_by_node
from dkist_processing_core.runs import RunView, TaskView
from dkist_processing_core.runs.moments import Moments

LEAST_ATTEMPTS = 3
"""A task with fewer earlier successful attempts has no expected duration."""
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
_LONGEST_SECONDS = 400 * 24 * 3600.0


class NotExpected(StrEnum):
    """Why no end of a run is expected, in words."""

    GRAPH = "the graph of the workflow is not known"
    CIRCLE = "the tasks of the graph form a circle"
    START = "the start of the run is not known"
    ENDED = "all known tasks have ended"
    FEW = f"a remaining task has fewer than {LEAST_ATTEMPTS} earlier successful attempts"
    LONG = f"a task has run for so long that fewer than {LEAST_ATTEMPTS} of its earlier attempts took longer"


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected end of a run."""

    at: datetime
    """If each remaining task takes as long as the median of its earlier attempts."""
    earliest: datetime
    latest: datetime
    """If all remaining tasks are fast, each as the fastest tenth of its earlier attempts, and if all are slow."""
    attempts: int
    """The number of earlier attempts that were used of the remaining task that has the fewest."""
    tasks: int
    """The number of remaining tasks."""


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


def expected_end(
    view: RunView, earlier: Mapping[str, Sequence[EarlierAttempt]], now: datetime
) -> Expected | NotExpected:
    """
    Return the expected end of a run, or why there is none.

    Args:
        view: The run.
        earlier: The earlier successful attempts of each node with remaining tasks.
        now: The present.
    """
    remaining = remaining_tasks(view)
    order = _order_of(view, remaining)
    if isinstance(order, NotExpected):
        return order
    usable = {node: [each for each in earlier.get(node, ()) if _is_usable(each)] for node in remaining}
    if min(map(len, usable.values())) < LEAST_ATTEMPTS:
        return NotExpected.FEW
    moments = Moments(view, now)
    left = {
        node: [_seconds_left(task, usable[node], moments.ready_at(task.name), now) for task in tasks]
        for node, tasks in remaining.items()
    }
    used = [len(of_task) for of_tasks in left.values() for of_task in of_tasks]
    if min(used) < LEAST_ATTEMPTS:
        return NotExpected.LONG
    ends = []
    for share in (LOW, MIDDLE, HIGH):
        seconds: dict[str, float] = {}
        for node, upstreams in order:
            begin = max((seconds[each] for each in upstreams), default=0.0)
            seconds[node] = begin + max(of_task[int(share * len(of_task))] for of_task in left[node])
        ends.append(_later(now, max(seconds.values())))
    return Expected(at=ends[1], earliest=ends[0], latest=ends[2], attempts=min(used), tasks=len(used))


def _is_usable(attempt: EarlierAttempt) -> bool:
    """Return True if an attempt can have taken that long."""
    return all(0 <= seconds <= _LONGEST_SECONDS for seconds in (attempt.waiting_seconds, attempt.working_seconds))


def _order_of(view: RunView, nodes: Collection[str]) -> list[tuple[str, list[str]]] | NotExpected:
    """Return the nodes with remaining tasks and their upstreams among them, each after these; or why there is none."""
    if view.graph is None:
        return NotExpected.GRAPH
    if not nodes:
        return NotExpected.ENDED
    if view.started_at is None:
        return NotExpected.START
    upstreams: dict[str, list[str]] = {node: [] for node in nodes}
    for upstream, node in view.graph.edges:
        if upstream in upstreams and node in upstreams:
            upstreams[node].append(upstream)
    try:
        return [(node, upstreams[node]) for node in TopologicalSorter(upstreams).static_order()]
    except CycleError:
        return NotExpected.CIRCLE


def _seconds_left(
    task: TaskView, earlier: Sequence[EarlierAttempt], ready_at: datetime | None, now: datetime
) -> list[float]:
    """
    Return for how many seconds a task goes on if it takes as long as earlier attempts, in ascending order.

    Of a task that runs, these are the attempts that took longer than it has by now. From the waiting time of one that
    waits for a worker, the time is subtracted that it has waited already.
    """
    if not task.attempts:
        waited = _seconds_since(ready_at, now)
        return sorted(max(0.0, each.waiting_seconds - waited) + each.working_seconds for each in earlier)
    elapsed = _seconds_since(task.attempts[-1].dispatched_at or task.attempts[-1].started_at, now)
    return sorted(each.working_seconds - elapsed for each in earlier if each.working_seconds >= elapsed)


def _seconds_since(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def _later(now: datetime, seconds: float) -> datetime:
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=now.tzinfo)
