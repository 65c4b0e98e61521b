"""
Two runs of a workflow, task by task, and what explains the difference of their durations.

Pure functions of the views of both runs, and of what their attempts have reported. The time of each run is divided by
its critical path: the differences of the tasks on it, with that of the time outside of all tasks, add up to the
difference of the runs. Not here: choosing the runs (pages.compare), and the critical path (runs.critical_path).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dkist_processing_core.events import TaskFailed
from dkist_processing_core.runs import AttemptView, RunView, State, TaskView
from dkist_processing_core.runs.critical_path import (
    ENVIRONMENT,
    PROCESS,
    QUEUE,
    RETRIES,
    TaskTime,
    critical_path,
    task_times,
)

_FIRST_PARTS = (QUEUE, RETRIES, ENVIRONMENT, "pre_run", "run", "post_run")
_NONE = timedelta(0)
_OfAttempts = Mapping[tuple[str, int | None], str]
_Fact = tuple[str, object, object]


@dataclass(frozen=True, slots=True)
class Difference:
    """A time in both runs; None in a run that does not have it."""

    name: str
    a: timedelta | None
    b: timedelta | None

    @property
    def seconds(self) -> tuple[float | None, float | None]:
        """Both times in seconds."""
        return (
            None if self.a is None else self.a.total_seconds(),
            None if self.b is None else self.b.total_seconds(),
        )

    @property
    def change(self) -> timedelta:
        """By how much it is longer in the second run."""
        return (self.b or _NONE) - (self.a or _NONE)

    @property
    def change_seconds(self) -> float:
        """The same in seconds."""
        return self.change.total_seconds()


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a task on the critical path of either run adds to the difference of the durations."""

    whole: Difference
    """Its time on the path; None in a run whose path it is not on."""
    parts: tuple[Difference, ...]
    """The parts of that time, in the order of time."""

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.whole.name


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the difference of the durations of two runs comes about."""

    whole: Difference
    """The durations of both runs."""
    tasks: tuple[Contribution, ...]
    """The tasks on the path of either run, the largest change first."""
    parts: tuple[Difference, ...]
    """The same times added up by part: all time in a queue, all time in `run`, and so on."""
    outside: Difference
    """The time outside of all tasks, which no task explains."""

    @property
    def explained(self) -> timedelta:
        """The changes of all tasks together; with that of the time outside, it is the change of the whole."""
        return sum((task.whole.change for task in self.tasks), _NONE)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task in one of the runs."""

    state: State
    attempts: int
    cause: str | None
    is_on_path: bool
    time: TaskTime | None
    """None without an attempt."""
    peak_memory: int | None
    """The largest resident memory of its last attempt, in bytes."""
    hosts: tuple[str, ...]
    queues: tuple[str, ...]
    environments: tuple[str, ...]
    """Whether its environments were built or reused."""


@dataclass(frozen=True, slots=True)
class ComparedTask:
    """A task in both runs; None in a run whose workflow does not have it."""

    name: str
    a: TaskFacts | None
    b: TaskFacts | None
    whole: Difference
    """The whole time of the task, whether it is on the path or not."""
    parts: tuple[Difference, ...]

    @property
    def memory_change(self) -> int | None:
        """By how many bytes its memory is larger in the second run; None if that is not known."""
        if self.a is None or self.b is None or self.a.peak_memory is None or self.b.peak_memory is None:
            return None
        return self.b.peak_memory - self.a.peak_memory


@dataclass(frozen=True, slots=True)
class Contrast:
    """A fact that differs between the runs: of the runs themselves, or of a task."""

    what: str
    task: str | None
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two runs."""

    explanation: Explanation | None
    """None if the duration of either is not known."""
    tasks: tuple[ComparedTask, ...]
    """In the order of both graphs."""
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    view: RunView
    until: datetime
    """The end of what has not ended."""
    hosts: _OfAttempts = field(default_factory=dict)
    queues: _OfAttempts = field(default_factory=dict)
    environments: _OfAttempts = field(default_factory=dict)
    """What attempts have reported, by task and number; an environment was built or reused."""


def compare(a: Side, b: Side) -> Comparison:
    """Return the comparison of two runs; swapped, it has the opposite changes."""
    facts_a, facts_b = _facts(a), _facts(b)
    names = _ordered(a.view, b.view)
    tasks = tuple(_compared(name, facts_a.get(name), facts_b.get(name)) for name in names)
    return Comparison(_explanation(a, b, names), tasks, tuple(_contrasts(a, b, tasks)))


def _ordered(a: RunView, b: RunView) -> list[str]:
    """Return the names of the tasks of both runs; the order is the same if the runs are swapped."""
    places: dict[str, int] = {}
    for view in (a, b):
        for place, task in enumerate(view.tasks):
            places[task.name] = max(place, places.get(task.name, 0))
    return sorted(places, key=lambda name: (places[name], name))


def _explanation(a: Side, b: Side, names: Sequence[str]) -> Explanation | None:
    path_a, path_b = critical_path(a.view, a.until), critical_path(b.view, b.until)
    if path_a is None or path_b is None:
        return None
    on_a = {time.name: time for time in path_a.tasks}
    on_b = {time.name: time for time in path_b.tasks}
    tasks = [
        Contribution(_whole(name, on_a.get(name), on_b.get(name)), _parts(on_a.get(name), on_b.get(name)))
        for name in names
        if name in on_a or name in on_b
    ]
    totals_a, totals_b = _totals(path_a.tasks), _totals(path_b.tasks)
    return Explanation(
        Difference("", path_a.ended_at - path_a.started_at, path_b.ended_at - path_b.started_at),
        tuple(sorted(tasks, key=lambda task: -abs(task.whole.change))),
        tuple(
            Difference(part, totals_a.get(part, _NONE), totals_b.get(part, _NONE))
            for part in _in_order(totals_a, totals_b)
        ),
        Difference("", path_a.outside, path_b.outside),
    )


def _totals(times: Iterable[TaskTime]) -> dict[str, timedelta]:
    totals: dict[str, timedelta] = defaultdict(timedelta)
    for time in times:
        for part, spent in time.parts.items():
            totals[part] += spent
    return totals


def _whole(name: str, a: TaskTime | None, b: TaskTime | None) -> Difference:
    return Difference(name, None if a is None else a.duration, None if b is None else b.duration)


def _parts(a: TaskTime | None, b: TaskTime | None) -> tuple[Difference, ...]:
    in_a, in_b = {} if a is None else a.parts, {} if b is None else b.parts
    return tuple(
        Difference(
            part,
            None if a is None else in_a.get(part, _NONE),
            None if b is None else in_b.get(part, _NONE),
        )
        for part in _in_order(in_a, in_b)
    )


def _in_order(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Return the names of the parts of either run, in the order of time; unknown phases come before the rest."""
    known = {part: place for place, part in enumerate(_FIRST_PARTS)}
    last = len(known)
    return sorted({*a, *b}, key=lambda part: (part == PROCESS, known.get(part, last), part))


def _facts(side: Side) -> dict[str, TaskFacts]:
    """Return the facts of each task of a run."""
    path = critical_path(side.view, side.until)
    on_path = set() if path is None else {time.name for time in path.tasks}
    times = task_times(side.view, side.until)
    return {
        task.name: TaskFacts(
            state=task.state,
            attempts=len(task.attempts),
            cause=_cause(task),
            is_on_path=task.name in on_path,
            time=times.get(task.name),
            peak_memory=_peak_memory(task.attempts[-1]) if task.attempts else None,
            hosts=_values(task, side.hosts),
            queues=_values(task, side.queues),
            environments=_values(task, side.environments),
        )
        for task in side.view.tasks
    }


def _values(task: TaskView, of_attempts: _OfAttempts) -> tuple[str, ...]:
    """Return the different values of the attempts of a task."""
    found = (of_attempts.get((task.name, attempt.number)) for attempt in task.attempts)
    return tuple(sorted({value for value in found if value is not None}))


def _cause(task: TaskView) -> str | None:
    end = task.attempts[-1].end if task.attempts else None
    return end.summary if isinstance(end, TaskFailed) else task.attempts[-1].cause if task.attempts else None


def _peak_memory(attempt: AttemptView) -> int | None:
    if attempt.end is not None:
        return attempt.end.peak_memory
    return None if attempt.sample is None or attempt.sample.resources is None else attempt.sample.resources.peak_rss


def _compared(name: str, a: TaskFacts | None, b: TaskFacts | None) -> ComparedTask:
    time_a, time_b = None if a is None else a.time, None if b is None else b.time
    return ComparedTask(name, a, b, _whole(name, time_a, time_b), _parts(time_a, time_b))


def _contrasts(a: Side, b: Side, tasks: Sequence[ComparedTask]) -> Iterator[Contrast]:
    """Yield what differs apart from times and memory."""
    of_runs: list[_Fact] = [
        ("version", a.view.run.workflow_version, b.view.run.workflow_version),
        ("state", a.view.state, b.view.state),
        ("reason of the end", a.view.reason, b.view.reason),
    ]
    yield from _different(None, of_runs)
    for task in tasks:
        yield from _different(task.name, _facts_of(task.a, task.b))
    if a.view.graph is not None and b.view.graph is not None:
        in_both = {task.name for task in tasks if task.a is not None and task.b is not None}
        edges_a, edges_b = set(a.view.graph.edges), set(b.view.graph.edges)
        for edge in sorted(edges_a ^ edges_b):
            if in_both.issuperset(edge):
                yield from _different(edge[1], [(f"after {edge[0]}", edge in edges_a, edge in edges_b)])


def _facts_of(a: TaskFacts | None, b: TaskFacts | None) -> list[_Fact]:
    """Return what may differ about a task."""
    if a is None or b is None:
        return [("in the workflow", a is not None, b is not None)]
    facts: list[_Fact] = [("state", a.state, b.state), ("failure", a.cause or "none", b.cause or "none")]
    # Where only one of them has run is known by the states.
    if a.attempts and b.attempts:
        facts += [
            ("attempts", a.attempts, b.attempts),
            ("host", _listed(a.hosts), _listed(b.hosts)),
            ("queue", _listed(a.queues), _listed(b.queues)),
            ("environment", _listed(a.environments), _listed(b.environments)),
        ]
    return facts


def _different(task: str | None, facts: Iterable[_Fact]) -> Iterator[Contrast]:
    return (Contrast(what, task, _shown(a), _shown(b)) for what, a, b in facts if a != b)


def _listed(values: Sequence[str]) -> str | None:
    return ", ".join(values) or None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)
