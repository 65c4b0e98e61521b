"""
Where the time of a run went: its critical path, and the consecutive parts of the time of each task on it.

Pure functions of a run's view. The parts are whole microseconds and leave no time out, so that those of the path, with
the time outside of all tasks, add up to the duration of the run. Clocks of several hosts may differ: a time that
contradicts the order of the graph is replaced by the nearest one that does not. Not here: drawing the path, and
comparing two runs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dkist_processing_core.events import Graph
from dkist_processing_core.identity import class_name_of
from dkist_processing_core.runs._views import AttemptView, RunView, TaskView

QUEUE = "queue"
"""From when all upstream tasks had ended until the first attempt reached a worker."""
RETRIES = "earlier attempts"
"""From the first to the last attempt: those that failed, and the pauses after them."""
ENVIRONMENT = "environment"
"""From when the last attempt reached a worker until its process began."""
PROCESS = "rest of the process"
"""The time of the last attempt's process that is in none of its phases: its start, its imports, its end."""
_NONE = timedelta(0)


@dataclass(frozen=True, slots=True)
class TaskTime:
    """The time of a task, from when it could begin until its end."""

    name: str
    ready_at: datetime
    ended_at: datetime
    parts: Mapping[str, timedelta]
    """
    The consecutive parts, in order: `QUEUE`, `RETRIES`, `ENVIRONMENT`, each phase of the last attempt, `PROCESS`.

    A part that took no time is left out.
    """

    @property
    def duration(self) -> timedelta:
        """The whole time, which is the sum of the parts."""
        return self.ended_at - self.ready_at


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The tasks that determined the duration of a run: each could begin when the one before had ended."""

    started_at: datetime
    ended_at: datetime
    """Of the run."""
    tasks: tuple[TaskTime, ...]

    @property
    def outside(self) -> timedelta:
        """The time of the run that belongs to none of the tasks: between the last end and the end of the run."""
        return self.ended_at - self.started_at - sum((task.duration for task in self.tasks), _NONE)


def critical_path(view: RunView, until: datetime) -> CriticalPath | None:
    """
    Return the critical path of a run; None if no time of the run is known.

    Args:
        view: The run. Without its graph, a task is taken to wait for the last task that ended before it began.
        until: The end of a run and of attempts that have not ended.
    """
    times = _Times(view, until)
    return None if times.span is None else CriticalPath(*times.span, tuple(reversed(list(times.backwards()))))


def task_times(view: RunView, until: datetime) -> dict[str, TaskTime]:
    """Return the time of each task with an attempt; the arguments are those of `critical_path`."""
    times = _Times(view, until)
    return {name: times.of(name) for name in times.ends}


def ran_from(attempt: AttemptView) -> datetime | None:
    """Return when an attempt began to run: the reported time, otherwise its end minus its duration."""
    if attempt.started_at is not None or attempt.ended_at is None or attempt.duration_seconds is None:
        return attempt.started_at
    try:
        return attempt.ended_at - timedelta(seconds=attempt.duration_seconds)
    except OverflowError:
        return None


def node_of(task_name: str, graph: Graph | None) -> str:
    """Return the node of a task: the instances of a mapped task are one node of the graph."""
    name = class_name_of(task_name)
    return task_name if graph is None or name == task_name or task_name in graph.nodes else name


class _Times:
    """The times of a run's tasks within the span of the run."""

    def __init__(self, view: RunView, until: datetime) -> None:
        self._tasks = {task.name: task for task in view.tasks if task.attempts}
        self._places = {task.name: place for place, task in enumerate(view.tasks)}
        known = {name: _known_end(task, until) for name, task in self._tasks.items()}
        begun = [moment for task in self._tasks.values() for moment in _begins(task)]
        first = view.started_at or min(begun, default=None)
        last = view.ended_at or (
            max((end for end in known.values() if end is not None), default=first) if view.state.is_end else until
        )
        self.span = None if first is None or last is None else (first, max(first, last))
        self.ends = {} if self.span is None else {name: self._within(end or last) for name, end in known.items()}
        self._before = self._predecessors(view) if self.ends else {}

    def _within(self, moment: datetime | None) -> datetime:
        assert self.span is not None
        first, last = self.span
        return first if moment is None else min(max(moment, first), last)

    def _predecessors(self, view: RunView) -> dict[str, str | None]:
        """Return for each task the one whose end let it begin; None for a task that could begin with the run."""
        order = {name: (end, self._places[name]) for name, end in self.ends.items()}
        if view.graph is None:
            by_end = sorted(order, key=order.__getitem__)
            ends = [order[name][0] for name in by_end]
            before: dict[str, str | None] = {}
            for place, name in enumerate(by_end):
                begin = self._within(next(iter(_begins(self._tasks[name])), None) or self.ends[name])
                earlier = min(place, bisect_right(ends, begin))
                before[name] = by_end[earlier - 1] if earlier else None
            return before
        upstreams: dict[str, list[str]] = {}
        for upstream, name in view.graph.edges:
            upstreams.setdefault(name, []).append(upstream)
        of_node: dict[str, list[str]] = {}
        for name in self._places:
            of_node.setdefault(node_of(name, view.graph), []).append(name)
        # The task of each node that ended last. Of a node without an attempt, which the engine has skipped, it is the
        # one that let it be skipped.
        last: dict[str, str | None] = {}
        before = {}
        for node, names in of_node.items():
            known = [found for each in upstreams.get(node, []) if (found := last.get(each)) is not None]
            latest = max(known, key=order.__getitem__, default=None)
            before |= dict.fromkeys(names, latest)
            last[node] = max((name for name in names if name in order), key=order.__getitem__, default=latest)
        return before

    def backwards(self) -> Iterator[TaskTime]:
        """Yield the times of the tasks on the critical path, the last one first."""
        assert self.span is not None
        last = max(self.ends, key=lambda name: (self.ends[name], self._places[name]), default=None)
        until = self.span[1]
        while last is not None:
            time = self.of(last, until)
            yield time
            last, until = self._before[last], time.ready_at

    def of(self, name: str, until: datetime | None = None) -> TaskTime:
        """Return the time of a task that has an attempt, which ends at `until` at the latest."""
        assert self.span is not None
        before = self._before[name]
        ended = self.ends[name] if until is None else min(until, self.ends[name])
        ready = self.span[0] if before is None else min(self.ends[before], ended)
        return TaskTime(name, ready, ended, _parts(self._tasks[name], ready, ended))


def _parts(task: TaskView, ready: datetime, ended: datetime) -> dict[str, timedelta]:
    first, last = task.attempts[0], task.attempts[-1]
    marks = {
        QUEUE: first.dispatched_at or ran_from(first),
        RETRIES: (last.dispatched_at or ran_from(last)) if first is not last else None,
        ENVIRONMENT: ran_from(last),
    }
    parts, at = {}, ready
    for name, mark in marks.items():
        reached = at if mark is None else min(max(mark, at), ended)
        parts[name] = reached - at
        at = reached
    rest = ended - at
    for phase, seconds in (last.end.phases if last.end is not None else {}).items():
        spent = min(rest, timedelta(seconds=min(seconds, rest.total_seconds())))
        parts[phase] = parts.get(phase, _NONE) + spent
        rest -= spent
    parts[PROCESS] = parts.get(PROCESS, _NONE) + rest
    return {name: part for name, part in parts.items() if part}


def _begins(task: TaskView) -> Iterator[datetime]:
    for attempt in task.attempts:
        begin = attempt.dispatched_at or ran_from(attempt)
        if begin is not None:
            yield begin


def _known_end(task: TaskView, until: datetime) -> datetime | None:
    """Return the end of the last attempt of a task, or the last of its known times."""
    last = task.attempts[-1]
    if not last.state.is_end:
        return until
    return last.ended_at or ran_from(last) or last.dispatched_at
