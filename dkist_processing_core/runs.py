"""
What the reports of several observers add up to: the state of runs, tasks and attempts.

A `RunState` keeps reports as a set and derives everything from it, so neither order nor repetition can matter. Not
here: where events come from (consumer), how a state is drawn (cli).
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    Reporter,
    TaskDispatched,
    TaskEnd,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
    encode,
)
from dkist_processing_core.identity import Run

WorkflowEnd = WorkflowFinished | WorkflowFailed


class State(StrEnum):
    """Where an attempt, a task or a run is."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"

    @property
    def is_end(self) -> bool:
        """Whether nothing more is expected."""
        return self in (State.FINISHED, State.FAILED, State.SKIPPED, State.NOT_RUN)


_ENDS: dict[type[TaskEnd], State] = {
    TaskFinished: State.FINISHED,
    TaskSkipped: State.SKIPPED,
    TaskFailed: State.FAILED,
}
# Of words of equal weight that contradict each other the bad news stands: a failure must not be hidden.
_GRAVITY = [State.FINISHED, State.SKIPPED, State.FAILED]
_RANK = {Reporter.LAUNCHER: 3, Reporter.TASK: 2, Reporter.ENGINE: 1, Reporter.WATCHER: 0}
_SPECIFICITY: dict[str, int] = {cause: rank for rank, cause in enumerate(Cause)}
# What the engine can know of a failure that whoever stood nearer reports too.
_REFINING = (Cause.TERMINATED, Cause.TIMEOUT)
_BY_ENGINES_WORD = {
    "success": State.FINISHED,
    "failed": State.FAILED,
    "upstream_failed": State.NOT_RUN,
    "skipped": State.SKIPPED,
    "removed": State.NOT_RUN,
}


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try of a task, as all reports together tell it."""

    number: int | None
    state: State
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    end: TaskEnd | None = None
    """The one outcome, its fields merged from every report that agrees; None where nobody reported it."""
    cause: str | None = None
    """Why it failed, also where that is only concluded: `lost` for an end that nobody reported."""
    contradictions: tuple[TaskEnd, ...] = ()
    """The ends reported that say otherwise."""
    progress: TaskProgressed | None = None
    reporters: tuple[Reporter, ...] = ()

    @property
    def duration_seconds(self) -> float | None:
        """How long it took, in seconds: as measured, else by the clock."""
        if self.end is not None and self.end.duration_seconds is not None:
            return self.end.duration_seconds
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task of a run, with its attempts in order."""

    name: str
    state: State
    attempts: tuple[AttemptView, ...] = ()
    engine_state: str | None = None
    """What the engine called it when the run ended."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run: its tasks in dependency order where the graph is known, else in the order in which they were heard of."""

    run: Run
    state: State
    tasks: tuple[TaskView, ...]
    started_at: datetime | None = None
    ended_at: datetime | None = None
    graph: Graph | None = None
    verdict: State | None = None
    """What the engine said of the run when it ended; None before that, and for a run that has no engine."""


class RunState:
    """Folds reports into the state of every run that they speak of."""

    def __init__(self, reports: Iterable[Event] = ()) -> None:
        """Begin with these reports."""
        self._runs: dict[tuple[str, str, str], _Reports] = {}
        for report in reports:
            self.fold(report)

    def fold(self, report: Event) -> bool:
        """Take a report into account, and return whether it said anything new."""
        key = (report.workflow_name, report.workflow_version, report.run_id)
        return self._runs.setdefault(key, _Reports()).add(report)

    @property
    def runs(self) -> tuple[RunView, ...]:
        """Every run, the one that began first first."""
        views = [reports.view() for reports in self._runs.values()]
        return tuple(sorted(views, key=lambda view: (_sortable(view.started_at), astuple(view.run))))

    def run(self, run_id: str) -> RunView | None:
        """Return one run, by its id."""
        return next((view for view in self.runs if view.run.run_id == run_id), None)


@dataclass(slots=True)
class _Reports:
    """The reports on one run: what is kept of them is the same in whatever order and however often they come."""

    kept: dict[tuple[str, ...], Event] = field(default_factory=dict)
    _view: RunView | None = None

    def add(self, report: Event) -> bool:
        key: tuple[str, ...] = (report.id, report.reported_by)
        if isinstance(report, TaskProgressed):
            # Only the latest matters: a long task must not fill the memory of whoever watches it.
            key = (report.name, report.task_name, str(report.attempt), report.reported_by)
        known = self.kept.get(key)
        if known is not None and not _precedes(report, known):
            return False
        self.kept[key] = report
        self._view = None
        return True

    def view(self) -> RunView:
        if self._view is None:
            self._view = _view_of(
                sorted(self.kept.values(), key=lambda event: (event.time, event.id, event.reported_by))
            )
        return self._view


def _precedes(report: Event, known: Event) -> bool:
    """Order reports under one key: by sequence, by how much they say, then by their bytes, the same everywhere."""
    if isinstance(report, TaskProgressed) and isinstance(known, TaskProgressed) and report.sequence != known.sequence:
        return report.sequence > known.sequence
    return (_said(report), encode(report)) > (_said(known), encode(known))


def _said(report: Event) -> int:
    return sum(getattr(report, name) is not None for name in type(report).model_fields)


def _view_of(reports: list[Event]) -> RunView:
    """Return the view of one run, from its reports in order of time."""
    starts = [event for event in reports if isinstance(event, WorkflowStarted)]
    ends = [event for event in reports if isinstance(event, WorkflowFinished | WorkflowFailed)]
    end = max(ends, key=_moment, default=None)
    graph = next((event.graph for event in reversed(starts) if event.graph is not None), None)
    names = [*(graph.nodes if graph else ()), *(e.task_name for e in reports if isinstance(e, TaskEvent))]
    names += end.tasks if end else ()
    heard: dict[str, list[TaskEvent]] = {name: [] for name in names}
    for event in reports:
        if isinstance(event, TaskEvent):
            heard[event.task_name].append(event)
    by_task = {name: _attempts(of_task, end) for name, of_task in heard.items()}
    if end is not None and _went_on(by_task, starts, end):
        # Cleared, and begun again: what the engine said of the time before no longer holds.
        end = None
    tasks = tuple(_task_view(name, attempts, end) for name, attempts in by_task.items())
    run = next((event.run for event in reports if event.recipe_run_id is not None), reports[0].run)
    first = min((_moment(event) for event in starts), default=None)
    began = first or next((event.time for event in reports), None)
    return RunView(
        run=run,
        state=_run_state(tasks, end, has_engine=bool(starts or ends or not run.is_by_hand)),
        tasks=tasks,
        started_at=began,
        ended_at=_moment(end) if end else None,
        graph=graph,
        verdict=None if end is None else State.FINISHED if isinstance(end, WorkflowFinished) else State.FAILED,
    )


def _went_on(by_task: dict[str, list[AttemptView]], starts: list[WorkflowStarted], end: WorkflowEnd) -> bool:
    """
    Say whether a run was cleared after this end: by its new start, or by an attempt that the end did not know.

    There is not always a start: the engine's side reports it on root nodes, and those need not have been cleared.
    """
    ended_at = _moment(end)
    last = {name: attempts[-1] for name, attempts in by_task.items() if attempts}
    return any(_moment(start) > ended_at for start in starts) or any(
        _began_after(attempt, ended_at) and attempt.state is not _engines_word(end, name)
        for name, attempt in last.items()
    )


def _began_after(attempt: AttemptView, moment: datetime) -> bool:
    began = attempt.dispatched_at or attempt.started_at
    return began is not None and began > moment


def _engines_word(end: WorkflowEnd, name: str) -> State | None:
    return _BY_ENGINES_WORD.get(end.tasks.get(name, ""))


def _run_state(tasks: tuple[TaskView, ...], end: WorkflowEvent | None, *, has_engine: bool) -> State:
    if end is not None:
        return State.FINISHED if isinstance(end, WorkflowFinished) else State.FAILED
    if has_engine or not all(task.state.is_end for task in tasks):
        return State.RUNNING
    # By hand: over as soon as nothing is running, until the next call.
    return State.FAILED if any(task.state is State.FAILED for task in tasks) else State.FINISHED


def _task_view(name: str, attempts: list[AttemptView], end: WorkflowEnd | None) -> TaskView:
    if attempts:
        state = attempts[-1].state
    else:
        state = State.WAITING if end is None else _engines_word(end, name) or State.NOT_RUN
    return TaskView(name, state, tuple(attempts), end.tasks.get(name) if end else None)


def _attempts(heard: list[TaskEvent], end: WorkflowEnd | None) -> list[AttemptView]:
    """Return the attempts of one task in order, those before the last closed, and the last one by the run's end."""
    numbered: dict[int, list[TaskEvent]] = {}
    unnumbered = [event for event in heard if event.attempt is None]
    for event in heard:
        if event.attempt is not None:
            numbered.setdefault(event.attempt, []).append(event)
    for event in unnumbered:
        # Its reporter does not count attempts: it means the last one that there was at the time.
        before = [number for number, events in numbered.items() if events[0].time <= event.time]
        if before and not any(isinstance(each, TaskEnd) for each in numbered[max(before)] if each.attempt is not None):
            numbered[max(before)].append(event)
    attempts = [_attempt_view(number, numbered[number]) for number in sorted(numbered)]
    if not attempts and unnumbered:
        attempts = [_attempt_view(None, unnumbered)]
    attempts = [
        attempt if attempt.state.is_end else _concluded(attempt, State.FAILED, later.dispatched_at or later.started_at)
        for attempt, later in pairwise(attempts)
    ] + attempts[-1:]
    if attempts and not attempts[-1].state.is_end and end is not None and not _began_after(attempts[-1], _moment(end)):
        concluded = _engines_word(end, heard[0].task_name)
        attempts[-1] = _concluded(attempts[-1], concluded, _moment(end)) if concluded else attempts[-1]
    return attempts


def _concluded(attempt: AttemptView, state: State, ended_at: datetime | None) -> AttemptView:
    """Close an attempt whose end nobody reported, by what followed it."""
    return replace(attempt, state=state, ended_at=ended_at, cause=Cause.LOST if state is State.FAILED else None)


def _attempt_view(number: int | None, reports: list[TaskEvent]) -> AttemptView:
    ends = [event for event in reports if isinstance(event, TaskEnd)]
    dispatched = [event.time for event in reports if isinstance(event, TaskDispatched)]
    started = [event.time for event in reports if isinstance(event, TaskStarted)]
    progress = [event for event in reports if isinstance(event, TaskProgressed)]
    outcome = max(ends, key=_weight, default=None)
    agreeing = [event for event in ends if outcome is not None and type(event) is type(outcome)]
    merged = _merged(agreeing) if agreeing else None
    running = State.RUNNING if started or progress else State.DISPATCHED
    return AttemptView(
        number=number,
        state=_ENDS[type(merged)] if merged else running,
        dispatched_at=min(dispatched, default=None),
        started_at=min(started, default=None),
        ended_at=merged.time if merged else None,
        end=merged,
        cause=str(merged.cause) if isinstance(merged, TaskFailed) else None,
        contradictions=tuple(event for event in ends if event not in agreeing),
        progress=max(progress, key=lambda event: event.sequence, default=None),
        reporters=tuple(sorted({event.reported_by for event in reports})),
    )


def _weight(end: TaskEnd) -> tuple[bool, bool, int]:
    return (not end.provisional, _stood_near(end), _GRAVITY.index(_ENDS[type(end)]))


def _stood_near(end: TaskEnd) -> bool:
    return end.reported_by in (Reporter.TASK, Reporter.LAUNCHER)


def _merged(ends: list[TaskEnd]) -> TaskEnd:
    """Return one end with the fields of all: of each the value that the best informed report has."""
    ordered = sorted(ends, key=_informed, reverse=True)
    best = ordered[0]
    equals = [end for end in ends if (end.provisional, _stood_near(end)) == (best.provisional, _stood_near(best))]
    fields = {
        name: next((value for end in ordered if (value := getattr(end, name)) not in (None, {})), getattr(best, name))
        for name in type(best).model_fields
    }
    fields |= {"time": min(end.time for end in equals), "provisional": best.provisional}
    if isinstance(best, TaskFailed):
        told = [end for end in ends if isinstance(end, TaskFailed) and (end in equals or end.cause in _REFINING)]
        fields["cause"] = max(told, key=lambda end: (_specificity(end), end.cause)).cause
    return type(best).model_construct(**fields)


def _informed(end: TaskEnd) -> tuple[bool, bool, int, int, bytes]:
    return (not end.provisional, _stood_near(end), _specificity(end), _RANK[end.reported_by], encode(end))


def _specificity(end: TaskEnd) -> int:
    """Order causes; one that a newer release knows and this one does not is the least specific."""
    return _SPECIFICITY.get(end.cause, -1) if isinstance(end, TaskFailed) else -1


def _moment(event: Event) -> datetime:
    """When the engine says that a run began or ended; when it was reported where it does not say."""
    said = getattr(event, "started_at", None) or getattr(event, "ended_at", None)
    return said or event.time


def _sortable(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
