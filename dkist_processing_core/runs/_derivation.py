"""
The state of one run, derived from the set of reports on it.

A pure function: the order and the repetition of reports do not change the result, and it reads no clock. Not here:
storing the reports (_stored_reports), and the plausibility of their times (_plausibility). Over 300 lines, since the
rules for attempts, tasks and runs refer to each other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from dkist_processing_core.events import (
    Cause,
    Event,
    Reporter,
    TaskDispatched,
    TaskEnd,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    TaskStarted,
    WorkflowEnd,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
    encode,
)
from dkist_processing_core.identity import Run
from dkist_processing_core.runs._alarms import ALARMS, alarm_of_run, with_alarms
from dkist_processing_core.runs._plausibility import Window, stated_times
from dkist_processing_core.runs._views import STATES_OF_ENGINE, AttemptView, RunView, State, TaskView

_LAST = datetime.max.replace(tzinfo=UTC)
_ENDS: dict[type[TaskEnd], State] = {
    TaskFinished: State.FINISHED,
    TaskSkipped: State.SKIPPED,
    TaskFailed: State.FAILED,
}
# If reports of equal weight contradict each other, the worse outcome counts: a failure must not be hidden.
_SEVERITY = [State.FINISHED, State.SKIPPED, State.FAILED]
_RANK = {Reporter.LAUNCHER: 3, Reporter.TASK: 2, Reporter.ENGINE: 1, Reporter.WATCHER: 0}
_SPECIFICITY: dict[str, int] = {cause: rank for rank, cause in enumerate(Cause)}
# The causes that the engine can know for a failure that launcher and task also report.
_REFINING = (Cause.TERMINATED, Cause.TIMEOUT)


def view_of(reports: Iterable[Event], window: Window | None) -> RunView:
    """Return the view of one run; times outside of `window` are ignored, and None accepts all times."""
    return _Derivation(window).view(reports)


def run_view(reports: Iterable[Event], *, received_at: datetime | None = None) -> RunView:
    """
    Return the view of one run from reports of which `kept_reports` has left out those without an effect.

    Args:
        reports: The reports on the run, in any order.
        received_at: When the last of them was received, by which times are judged; without it, all are plausible.
    """
    return view_of(reports, None if received_at is None else Window.around(received_at))


class _Derivation:
    """The derivation of a run's state from its reports, with only their plausible times."""

    def __init__(self, window: Window | None) -> None:
        self._window = window

    def _is_plausible(self, moment: datetime) -> bool:
        return self._window is None or moment in self._window

    def _is_wholly_plausible(self, event: Event) -> bool:
        if isinstance(event, WorkflowEvent):
            return all(map(self._is_plausible, stated_times(event)))
        return self._is_plausible(event.time)

    def _time(self, event: Event) -> datetime | None:
        """Return the time of a report, or None if it is not plausible."""
        return event.time if self._is_plausible(event.time) else None

    def _moment(self, event: Event) -> datetime | None:
        """Return the engine's time of a run's start or end, or else the report's time; None if that is implausible."""
        moment = stated_times(event)[0]
        return moment if self._is_plausible(moment) else None

    def _ended_at(self, end: WorkflowEnd) -> datetime | None:
        """Return the time of a run's end; the report on a lost run has only the time at which somebody looked."""
        return None if _has_no_time(end) else self._moment(end)

    def view(self, unordered: Iterable[Event]) -> RunView:
        """Return the view of the run."""
        received_reports = list(unordered)
        alarms = [event for event in received_reports if isinstance(event, ALARMS)]
        others = [event for event in received_reports if not isinstance(event, ALARMS)] if alarms else received_reports
        reports = list(self._in_order(others))
        if not reports:
            return _known_by_alarms(list(self._in_order(alarms)))
        of_tasks = [event for event in reports if isinstance(event, TaskEvent)]
        of_run = [event for event in reports if isinstance(event, WorkflowEvent)]
        starts = [event for event in of_run if isinstance(event, WorkflowStarted)]
        ends = [event for event in of_run if isinstance(event, WorkflowEnd)]
        end = max(ends, key=lambda each: _known_first(self._moment(each)), default=None)
        graph = next((event.graph for event in reversed(starts) if event.graph is not None), None)
        names = [*(graph.nodes if graph else ()), *(event.task_name for event in of_tasks)]
        names += end.tasks if end else ()
        received: dict[str, list[TaskEvent]] = {name: [] for name in names}
        for event in of_tasks:
            received[event.task_name].append(event)
        by_task = {name: self._attempts(of_task, end) for name, of_task in received.items()}
        if end is not None and self._was_restarted(by_task, starts, ends, end):
            # The run was cleared, and began again: the engine's report of its earlier end no longer holds.
            end = None
        tasks = tuple(_task_view(name, attempts, end) for name, attempts in with_alarms(by_task, alarms).items())
        run = _named_run(reports)
        first = min(self._moments(starts), default=None)
        state = _run_state(tasks, end, has_engine=bool(starts or ends or not run.is_by_hand))
        return RunView(
            run=run,
            state=state,
            tasks=tasks,
            started_at=first or self._time(reports[0]),
            is_start_known=bool(starts) or isinstance(reports[0], TaskDispatched | TaskStarted),
            ended_at=self._ended_at(end) if end else None,
            graph=graph,
            verdict=None if end is None else State.FINISHED if isinstance(end, WorkflowFinished) else State.FAILED,
            reason=end.reason if isinstance(end, WorkflowFailed) else None,
            overdue=alarm_of_run(state, alarms),
            implausible=tuple(event for event in reports if not self._is_wholly_plausible(event)),
        )

    def _in_order(self, reports: Iterable[Event]) -> Iterator[Event]:
        """Yield the reports in the order of their times; reports of the same time, or without one, by their ids."""
        place = itemgetter(0)
        placed = sorted(((self._time(event) or _LAST, event) for event in reports), key=place)
        for _, simultaneous in groupby(placed, key=place):
            events = [event for _, event in simultaneous]
            # Computing an id costs more than everything else here.
            yield from events if len(events) == 1 else sorted(events, key=lambda each: (each.id, each.reported_by))

    def _moments(self, events: Iterable[Event]) -> set[datetime]:
        return {moment for event in events if (moment := self._moment(event)) is not None}

    def _was_restarted(
        self,
        by_task: dict[str, list[AttemptView]],
        starts: list[WorkflowStarted],
        ends: list[WorkflowEnd],
        end: WorkflowEnd,
    ) -> bool:
        """
        Return True if the run was cleared after this end, as a new start or an attempt after the end shows.

        There is not always a new start: the engine's side reports it on root nodes, and those need not have been
        cleared. A start after the end is not always a new one: if a clock was set back, the only start may be there.
        """
        ended_at, began = self._moment(end), self._moments(starts)
        later = {moment for moment in began if ended_at is not None and moment > ended_at}
        if later and (later < began or len(began) > len(self._moments(ends))):
            return True
        return any(attempts and self._began_after(attempts[-1], end, name) for name, attempts in by_task.items())

    def _began_after(self, attempt: AttemptView, end: WorkflowEnd, name: str) -> bool:
        """Return True if an attempt began after an end of the run that does not include it."""
        began, ended_at = attempt.dispatched_at or attempt.started_at, self._moment(end)
        if began is None or ended_at is None or began <= ended_at:
            return False
        verdict = _state_in_engine(end, name)
        # A task that has run has had its first attempt: if that attempt seems to be later, a clock was set back.
        is_known = attempt.number == 1 and verdict in (State.FINISHED, State.FAILED)
        return attempt.state is not verdict and not is_known

    def _attempts(self, received: list[TaskEvent], end: WorkflowEnd | None) -> list[AttemptView]:
        """Return the attempts of one task in order, each closed by the next, and the last one by the end of the run."""
        numbered: dict[int, list[TaskEvent]] = {}
        unnumbered = [event for event in received if event.attempt is None]
        for event in received:
            if event.attempt is not None:
                numbered.setdefault(event.attempt, []).append(event)
        for event in unnumbered:
            # Its reporter does not count attempts: the report is about the last attempt at that time.
            before = [number for number, events in numbered.items() if not self._is_later(events[0], event)]
            if before and not any(
                isinstance(each, TaskEnd) for each in numbered[max(before)] if each.attempt is not None
            ):
                numbered[max(before)].append(event)
        attempts = [self._attempt_view(number, numbered[number]) for number in sorted(numbered)]
        if not attempts and unnumbered:
            attempts = [self._attempt_view(None, unnumbered)]
        attempts = [
            attempt
            if attempt.state.is_end
            else _concluded(attempt, State.FAILED, later.dispatched_at or later.started_at)
            for attempt, later in pairwise(attempts)
        ] + attempts[-1:]
        if attempts and not attempts[-1].state.is_end and end is not None:
            name = received[0].task_name
            concluded = None if self._began_after(attempts[-1], end, name) else _state_in_engine(end, name)
            attempts[-1] = _concluded(attempts[-1], concluded, self._ended_at(end)) if concluded else attempts[-1]
        elif attempts and end is not None and _has_no_time(end) and attempts[-1].end and attempts[-1].end.provisional:
            attempts[-1] = replace(attempts[-1], ended_at=None)
        return attempts

    def _is_later(self, event: Event, other: Event) -> bool:
        mine, others = self._time(event), self._time(other)
        return mine is not None and others is not None and mine > others

    def _attempt_view(self, number: int | None, reports: list[TaskEvent]) -> AttemptView:
        # One pass, since a check of a class takes long.
        by_class: dict[type[TaskEvent], list[Any]] = defaultdict(list)
        for event in reports:
            by_class[TaskEnd if isinstance(event, TaskEnd) else type(event)].append(event)
        ends: list[TaskEnd] = by_class[TaskEnd]
        started: list[TaskStarted] = by_class[TaskStarted]
        progress: list[TaskProgressed] = by_class[TaskProgressed]
        samples: list[TaskSampled] = by_class[TaskSampled]
        outcome = max(ends, key=_weight, default=None)
        agreeing = [event for event in ends if outcome is not None and type(event) is type(outcome)]
        merged = self._merged(agreeing) if agreeing else None
        running = State.RUNNING if started or progress or samples else State.DISPATCHED
        return AttemptView(
            number=number,
            state=_ENDS[type(merged)] if merged else running,
            dispatched_at=min(self._moments(by_class[TaskDispatched]), default=None),
            started_at=min(self._moments(started), default=None),
            preparation_seconds=_longest(event.environment_seconds for event in started),
            ended_at=self._time(merged) if merged else None,
            end=merged,
            cause=str(merged.cause) if isinstance(merged, TaskFailed) else None,
            contradictions=tuple(event for event in ends if event not in agreeing),
            progress=max(progress, key=lambda event: event.sequence, default=None),
            sample=max(samples, key=lambda event: event.sequence, default=None),
            sample_seconds=_longest(event.sample_seconds for event in started),
            overdue_after_seconds=_longest(event.overdue_after_seconds for event in started),
            reporters=tuple(sorted({event.reported_by for event in reports})),
        )

    def _merged(self, ends: list[TaskEnd]) -> TaskEnd:
        """Return one end with the fields of all: each with the value of the best informed report that has one."""
        if len(ends) == 1:
            return ends[0]
        ordered = sorted(ends, key=_information, reverse=True)
        best = ordered[0]
        equals = [
            end
            for end in ends
            if (end.provisional, _is_observed_closely(end)) == (best.provisional, _is_observed_closely(best))
        ]
        fields = {
            name: next(
                (value for end in ordered if (value := getattr(end, name)) not in (None, {})), getattr(best, name)
            )
            for name in best.__struct_fields__
        }
        # The launcher sees the whole life of the process, even if another report knows the cause better.
        fields["duration_seconds"] = max(ends, key=_precedence_of_duration).duration_seconds
        time = min(self._moments(equals), default=best.time)
        fields |= {"time": time, "provisional": best.provisional}
        if isinstance(best, TaskFailed):
            refining = [
                end for end in ends if isinstance(end, TaskFailed) and (end in equals or end.cause in _REFINING)
            ]
            fields["cause"] = max(refining, key=lambda end: (_specificity(end), end.cause)).cause
        return type(best)(**fields)


def _named_run(reports: list[Event]) -> Run:
    """Return the run, with its recipe run if a report has it."""
    return next((event.run for event in reports if event.recipe_run_id is not None), reports[0].run)


def _known_by_alarms(alarms: list[Any]) -> RunView:
    """Return the view of a run of which only watchers have reported."""
    overdue = alarm_of_run(State.RUNNING, alarms)
    return RunView(_named_run(alarms), State.RUNNING, (), is_start_known=False, overdue=overdue)


def _known_first(moment: datetime | None) -> datetime:
    return datetime.min.replace(tzinfo=UTC) if moment is None else moment


def _has_no_time(end: WorkflowEnd) -> bool:
    """Return True for the end of a lost run: it and the ends of tasks beside it have the time of their report alone."""
    return isinstance(end, WorkflowFailed) and end.is_of_lost_run


def _state_in_engine(end: WorkflowEnd, name: str) -> State | None:
    return STATES_OF_ENGINE.get(end.tasks.get(name, ""))


def _run_state(tasks: tuple[TaskView, ...], end: WorkflowEvent | None, *, has_engine: bool) -> State:
    if end is not None:
        return State.FINISHED if isinstance(end, WorkflowFinished) else State.FAILED
    if has_engine or not all(task.state.is_end for task in tasks):
        return State.RUNNING
    # A run by hand is over as soon as nothing is running, until the next call.
    return State.FAILED if any(task.state is State.FAILED for task in tasks) else State.FINISHED


def _task_view(name: str, attempts: list[AttemptView], end: WorkflowEnd | None) -> TaskView:
    if attempts:
        state = attempts[-1].state
    else:
        state = State.WAITING if end is None else _state_in_engine(end, name) or State.NOT_RUN
    return TaskView(name, state, tuple(attempts), end.tasks.get(name) if end else None)


def _concluded(attempt: AttemptView, state: State, ended_at: datetime | None) -> AttemptView:
    """Close an attempt with an unreported end, by the reports that followed it."""
    return replace(attempt, state=state, ended_at=ended_at, cause=Cause.LOST if state is State.FAILED else None)


def _weight(end: TaskEnd) -> tuple[bool, bool, int]:
    return (not end.provisional, _is_observed_closely(end), _SEVERITY.index(_ENDS[type(end)]))


def _is_observed_closely(end: TaskEnd) -> bool:
    return end.reported_by in (Reporter.TASK, Reporter.LAUNCHER)


def _information(end: TaskEnd) -> tuple[bool, bool, int, int, bytes]:
    return (not end.provisional, _is_observed_closely(end), _specificity(end), _RANK[end.reported_by], encode(end))


def _longest(measured: Iterable[float | None]) -> float | None:
    return max((seconds for seconds in measured if seconds is not None), default=None)


def _precedence_of_duration(end: TaskEnd) -> tuple[bool, bool, bool, int, bytes]:
    known = end.duration_seconds is not None
    return (known, not end.provisional, _is_observed_closely(end), _RANK[end.reported_by], encode(end))


def _specificity(end: TaskEnd) -> int:
    """Return the rank of a cause; a cause that only a newer release knows is the least specific."""
    return _SPECIFICITY.get(end.cause, -1) if isinstance(end, TaskFailed) else -1
