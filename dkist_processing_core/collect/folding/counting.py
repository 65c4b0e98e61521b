"""
The ends of attempts and of runs, each counted once: what a fold of a run adds to the totals.

A pure function. An end may be wrong or incomplete for a while, and a counter cannot be corrected: such an end is
counted a minute after its last report. Not here: the totals (totals), and the rows of a run (rows).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from dkist_processing_core import semconv
from dkist_processing_core.collect.keys import task_without_index
from dkist_processing_core.events import (
    Cause,
    Event,
    Reporter,
    TaskDispatched,
    TaskEnd,
    TaskEvent,
    TaskStarted,
    WorkflowEnd,
    WorkflowFinished,
)
from dkist_processing_core.identity.trace_context import parse_traceparent
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Exemplar, Metric
from dkist_processing_core.runs import AttemptView, RunView, State

SETTLED_SECONDS = 60.0
"""How long an end that may be wrong waits for a better report, as consumers wait (`provisional_after`)."""
# Causes that the launcher reports, and the engine may know better.
_REFINABLE = (Cause.SIGNAL, Cause.TERMINATED)
# The best informed about the span of an attempt first.
_REPORTERS = (Reporter.LAUNCHER, Reporter.TASK, Reporter.ENGINE, Reporter.WATCHER)
_RESULTS = {State.FINISHED: semconv.SUCCESS, State.SKIPPED: semconv.SKIP, State.NOT_RUN: semconv.CANCELLATION}


class Marks(msgspec.Struct):
    """What was counted of a run; it outlives the rows of the run, which may be derived again."""

    attempts: list[tuple[str, int | None, str, str | None]] = []
    """Task, number, result and cause of each counted attempt."""
    ends: list[tuple[str, str]] = []
    """Time, as in the event, and result of each counted end of the run."""


class Increment(NamedTuple):
    """One addition to a total: an occurrence, or a measured value of a histogram."""

    metric: Metric
    attributes: Mapping[str, str]
    value: float = 1
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Counted:
    """What a fold of a run counts."""

    increments: list[Increment] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    is_changed: bool = False
    """Whether the marks are others than before."""
    next_at: float | None = None
    """When an end that is not counted yet will be, without a further report; in seconds since 1970."""


def counted(view: RunView, received: Iterable[tuple[Event, float]], marks: Marks, now: float) -> Counted:
    """
    Return what the ends of a run add to the totals.

    Args:
        view: The run.
        received: The reports on it, each with the time when it was received in seconds since 1970.
        marks: What was counted of it before.
        now: The present time by the clock of `received`.
    """
    return _Counting(view, received, marks, now).counted()


class _Counting:
    def __init__(self, view: RunView, received: Iterable[tuple[Event, float]], marks: Marks, now: float) -> None:
        self._view = view
        self._now = now
        self._pipeline = {semconv.PIPELINE_NAME: view.run.workflow_name}
        self._of_task: dict[str, list[tuple[TaskEvent, float]]] = defaultdict(list)
        self._ends: dict[str, list[tuple[WorkflowEnd, float]]] = defaultdict(list)
        for event, at in received:
            if isinstance(event, TaskEvent):
                self._of_task[event.task_name].append((event, at))
            elif isinstance(event, WorkflowEnd):
                self._ends[event.number].append((event, at))
        self._attempts = {(task, number): (result, cause) for task, number, result, cause in marks.attempts}
        self._counted_ends = dict(marks.ends)
        self._found = Counted()

    def counted(self) -> Counted:
        for task in self._view.tasks:
            for attempt in task.attempts:
                if attempt.state.is_end:
                    self._count_attempt(task.name, attempt)
        self._count_ends()
        if self._found.is_changed:
            attempts = [(*key, *found) for key, found in self._attempts.items()]
            self._found.marks = Marks(attempts, list(self._counted_ends.items()))
        return self._found

    def _count_attempt(self, task_name: str, attempt: AttemptView) -> None:
        key = (task_name, attempt.number)
        # A reporter that does not know the number of the attempt was the only one when this was counted.
        before = self._attempts.get(key) or self._attempts.get((task_name, None))
        outcome = _outcome_of(attempt)
        if before == outcome and key in self._attempts:
            return
        reports = [(event, at) for event, at in self._of_task[task_name] if event.attempt in (attempt.number, None)]
        if not self._is_settled(attempt, reports):
            return
        if key not in self._attempts:
            self._attempts.pop((task_name, None), None)
        self._attempts[key] = outcome
        self._found.is_changed = True
        attributes = self._pipeline | {semconv.PIPELINE_TASK_NAME: task_without_index(task_name)}
        if before is None:
            self._found.increments += _increments(attempt, outcome, attributes, reports)
        elif before != outcome:
            self._found.increments.append(Increment(declarations.ATTEMPT_REVISED, attributes))

    def _is_settled(self, attempt: AttemptView, reports: list[tuple[TaskEvent, float]]) -> bool:
        """Return True if no better report on an end is to be expected; otherwise note until when one may come."""
        end = attempt.end
        if end is not None and not end.provisional and attempt.cause not in _REFINABLE and attempt.started_at:
            return True
        at = max((at for event, at in reports if isinstance(event, TaskEnd)), default=None)
        if end is None or at is None:
            # It was concluded from later reports.
            ends = [at for each in self._ends.values() for _, at in each]
            at = max((*ends, *(at for each in self._of_task.values() for _, at in each)), default=self._now)
        return self._is_due(at + SETTLED_SECONDS)

    def _is_due(self, at: float) -> bool:
        if at <= self._now:
            return True
        self._found.next_at = at if self._found.next_at is None else min(self._found.next_at, at)
        return False

    def _count_ends(self) -> None:
        """Count the ends of a run: several of one that was cleared, and one for all reports of the same end."""
        of_lost = self._ends.pop("", [])
        if not self._ends and of_lost and self._is_due(max(at for _, at in of_lost) + SETTLED_SECONDS):
            self._ends[""] = of_lost
        for number, received in self._ends.items():
            if number in self._counted_ends:
                continue
            ends = [event for event, _ in received]
            has_succeeded = all(isinstance(event, WorkflowFinished) for event in ends)
            result = semconv.SUCCESS if has_succeeded else semconv.FAILURE
            # The engine reports an end after all of a run that seemed to be lost.
            was_lost = self._counted_ends.pop("", None) is not None
            self._counted_ends[number] = result
            self._found.is_changed = True
            duration = None if was_lost else self._duration_of(ends)
            if duration is not None:
                attributes = {semconv.PIPELINE_RUN_STATE: semconv.EXECUTING, semconv.PIPELINE_RESULT: result}
                increment = Increment(declarations.RUN_DURATION, self._pipeline | attributes, duration)
                self._found.increments.append(increment)

    def _duration_of(self, ends: list[WorkflowEnd]) -> float | None:
        measured = max((event.duration_seconds for event in ends if event.duration_seconds is not None), default=None)
        if measured is not None:
            return measured
        started_at = self._view.started_at if self._view.is_start_known else None
        ended_at = max((event.ended_at for event in ends if event.ended_at is not None), default=None)
        if started_at is None or ended_at is None:
            return None
        return max(0.0, (ended_at - started_at).total_seconds())


def _outcome_of(attempt: AttemptView) -> tuple[str, str | None]:
    """Return result and cause of an attempt that has ended."""
    if attempt.state is not State.FAILED:
        return _RESULTS[attempt.state], None
    cause = attempt.cause or Cause.LOST
    return semconv.result_of(cause), str(cause)


def _increments(
    attempt: AttemptView,
    outcome: tuple[str, str | None],
    attributes: dict[str, str],
    received: list[tuple[TaskEvent, float]],
) -> Iterator[Increment]:
    """Yield what an attempt adds to the totals."""
    result, cause = outcome
    of_result = attributes | {semconv.PIPELINE_TASK_RUN_RESULT: result}
    yield Increment(declarations.ATTEMPT_ENDED, of_result | ({} if cause is None else {semconv.ERROR_TYPE: cause}))
    reports = sorted(
        (event for event, _ in received), key=lambda each: (_REPORTERS.index(each.reported_by), each.name, each.time)
    )
    queued = [each.queued_seconds for each in reports if isinstance(each, TaskDispatched)]
    measures: list[tuple[Metric, dict[str, str], float | None]] = [
        (declarations.ATTEMPT_DURATION, of_result, attempt.duration_seconds),
        (declarations.QUEUE_DURATION, attributes, max((each for each in queued if each is not None), default=None)),
        (declarations.PEAK_MEMORY, attributes, None if attempt.end is None else attempt.end.peak_memory),
    ]
    environment = next((each for each in reports if isinstance(each, TaskStarted) and each.environment), None)
    if environment is not None:
        of_environment = attributes | {semconv.ENVIRONMENT_STATE: str(environment.environment)}
        measures.append((declarations.ENVIRONMENT_DURATION, of_environment, attempt.preparation_seconds))
    span = next((found for each in reports if (found := parse_traceparent(each.traceparent or "")) is not None), None)
    at = max(at for _, at in received) if attempt.ended_at is None else attempt.ended_at.timestamp()
    for metric, of_metric, value in measures:
        if value is not None:
            exemplar = None if span is None else Exemplar(float(value), at, f"{span[0]:032x}", f"{span[1]:016x}")
            yield Increment(metric, of_metric, float(value), exemplar)
