"""
The state of runs, tasks and attempts as values.

Not here: their derivation from reports (_derivation).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dkist_processing_core.events import (
    Event,
    Graph,
    Reporter,
    TaskEnd,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    WorkflowOverdue,
)
from dkist_processing_core.identity import Run

_LONGEST_SECONDS = 400 * 24 * 3600.0


class State(StrEnum):
    """The state of an attempt, a task or a run."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"

    @property
    def is_end(self) -> bool:
        """True if no further change is expected."""
        return self in (State.FINISHED, State.FAILED, State.SKIPPED, State.NOT_RUN)


STATES_OF_ENGINE = {
    "success": State.FINISHED,
    "failed": State.FAILED,
    "upstream_failed": State.NOT_RUN,
    "skipped": State.SKIPPED,
    "removed": State.NOT_RUN,
}
"""The state of a task for each name by which the engine reports the end of a task."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt of a task, derived from all reports together."""

    number: int | None
    state: State
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    preparation_seconds: float | None = None
    """The time to find or build the environment before the start, in seconds; None without an own environment."""
    ended_at: datetime | None = None
    end: TaskEnd | None = None
    """The one outcome, its fields merged from every report that agrees; None if it was not reported."""
    cause: str | None = None
    """The cause of the failure, even if it is only inferred: `lost` for an end that was not reported."""
    contradictions: tuple[TaskEnd, ...] = ()
    """The reported ends that contradict that outcome."""
    progress: TaskProgressed | None = None
    sample: TaskSampled | None = None
    """The latest look of a launcher at the processes of the attempt."""
    sample_seconds: float | None = None
    """The time from the start to the first sample, in seconds; None if none is to be expected."""
    overdue_after_seconds: float | None = None
    """The duration after which the author regards the attempt as overdue, in seconds since its start."""
    overdue: TaskOverdue | None = None
    """The alarm of a watcher that stands; None for an attempt that has ended."""
    reporters: tuple[Reporter, ...] = ()

    @property
    def duration_seconds(self) -> float | None:
        """
        The duration of the attempt's process, or of a call by hand, in seconds: as measured, otherwise by the clock.

        A measured value above 400 days is ignored.
        """
        measured = None if self.end is None else self.end.duration_seconds
        if measured is not None and measured <= _LONGEST_SECONDS:
            return measured
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
    """The engine's state of the task when the run ended."""

    @property
    def disputed_state(self) -> State | None:
        """The engine's state of the task, if it contradicts that of the attempts; None otherwise."""
        reported = STATES_OF_ENGINE.get(self.engine_state or "")
        # A task that the engine has not run may have attempts from before it was cleared.
        is_disputed = self.attempts and reported not in (None, State.NOT_RUN, self.state)
        return reported if is_disputed else None


# It allows weak references, so that a state need not hold views that are no longer used.
@dataclass(frozen=True, slots=True, weakref_slot=True)
class RunView:
    """A run: its tasks in dependency order where the graph is known, otherwise in the order of their first reports."""

    run: Run
    state: State
    tasks: tuple[TaskView, ...]
    started_at: datetime | None = None
    ended_at: datetime | None = None
    graph: Graph | None = None
    verdict: State | None = None
    """The result that the engine reported at the end of the run; None before that, and for a run without an engine."""
    reason: str | None = None
    """The reason of the engine for the end of a failed run."""
    overdue: WorkflowOverdue | None = None
    """The alarm of a watcher that stands: the run neither runs an attempt nor ends."""
    is_start_known: bool = True
    """False if `started_at` is only the time of the first report that was received, which is not about a start."""
    implausible: tuple[Event, ...] = ()
    """
    The reports with a time more than 400 days before, or more than one or two days after, the last report received.

    Only their times are ignored: these affect neither order nor duration, nor whether a run continues.
    """

    @property
    def is_disputed(self) -> bool:
        """True if the results of the tasks contradict the engine's result of the run."""
        if self.verdict is None or not self.tasks:
            return False
        has_failed = any(task.state in (State.FAILED, State.NOT_RUN) for task in self.tasks)
        return (self.verdict is State.FAILED) is not has_failed
