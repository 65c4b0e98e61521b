"""
The end of a run in Airflow's words, as events: of the run itself, and of its tasks without an end or an announcement.

The callback at the end of a run uses it, and so does what asks Airflow's REST API for ends that no callback reported:
equal facts give equal events. Not here: where the facts come from (_runs, reconcile).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dkist_processing_core.airflow._states import FAILED
from dkist_processing_core.delivery.lost_runs import final_failure
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import (
    Cause,
    Event,
    RecipeRunFailureMessage,
    Reporter,
    TaskFailed,
    TaskFinished,
    WorkflowFailed,
    WorkflowFinished,
)
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.journal.notes import SUCCEEDED
from dkist_processing_core.runs import AttemptView, RunState, State

_MOST_ATTEMPTS = 20
_MESSAGE = "the engine reports it as failed at the end of the run"


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What Airflow knows about the end of a run."""

    succeeded: bool
    began: datetime | None = None
    over: datetime | None = None
    duration_seconds: float | None = None
    states: dict[str, str] = field(default_factory=dict)
    """The state of every task; empty if Airflow does not report them."""
    reason: str | None = None

    @property
    def state(self) -> State:
        """The result, as the fold names it."""
        return State.FINISHED if self.succeeded else State.FAILED

    @property
    def failed_tasks(self) -> list[str] | None:
        """The tasks that have failed; None if Airflow does not report them and the run has failed."""
        if not self.states and not self.succeeded:
            return None
        return [name for name, state in self.states.items() if state == FAILED]


@dataclass(frozen=True, slots=True)
class UnreportedFailures:
    """The names of failed tasks, in Airflow's order, each with its last attempt if that is known."""

    without_end: tuple[str, ...] = ()
    """Tasks whose last attempt has no end reported by task or launcher."""
    unannounced: tuple[tuple[str, int | None], ...] = ()
    """Tasks whose failure was not announced, and that their launcher has not seen succeed."""


def unreported_in(received: Iterable[Event], run: Run, failed: Sequence[str] | None) -> UnreportedFailures:
    """
    Return the missing reports about the failed tasks of a run, by the reports that were received.

    If `failed` is None, the failed tasks are those that have begun and of whose success there is no report.
    """
    reports = [
        event
        for event in received
        if (event.workflow_name, event.workflow_version, event.run_id)
        == (run.workflow_name, run.workflow_version, run.run_id)
    ]
    view = RunState(reports).run(run.run_id)
    last = {task.name: task.attempts[-1] for task in view.tasks if task.attempts} if view is not None else {}
    if failed is None:
        failed = [name for name, attempt in last.items() if attempt.state not in (State.FINISHED, State.SKIPPED)]
    return UnreportedFailures(
        without_end=tuple(name for name in failed if name not in last or not _has_reported_end(last[name])),
        unannounced=tuple(
            (name, last[name].number if name in last else None)
            for name in failed
            if name not in last or not _is_announced(last[name], reports, name)
        ),
    )


def _has_reported_end(attempt: AttemptView) -> bool:
    return attempt.end is not None and not attempt.end.provisional


def _is_announced(attempt: AttemptView, reports: Sequence[Event], name: str) -> bool:
    if isinstance(attempt.end, TaskFinished) and _has_reported_end(attempt):
        return True
    # Airflow reports a failure as final only together with its announcement.
    return any(
        isinstance(report, TaskFailed)
        and (report.reported_by, report.task_name, report.attempt) == (Reporter.ENGINE, name, attempt.number)
        and report.attempt is not None
        and report.final is True
        for report in reports
    )


def report_end(reporter: EventReporter, end: RunEnd) -> bool:
    """Publish the end of a run, and return whether the publisher accepted it; an error is logged."""
    facts: dict[str, Any] = {"ended_at": end.over, "duration_seconds": end.duration_seconds, "tasks": end.states}
    if end.succeeded:
        return reporter.report(WorkflowFinished, **facts)
    return reporter.report(WorkflowFailed, **facts, reason=end.reason)


def report_failures(
    reporter: EventReporter,
    missing: UnreportedFailures,
    at: datetime | None,
    message: Callable[[str], RecipeRunFailureMessage],
    *,
    why: str = _MESSAGE,
) -> None:
    """
    Publish the missing reports and announcements of failed tasks; errors are logged.

    Args:
        reporter: The reporter of the run.
        missing: What is missing.
        at: When the run ended; None for now.
        message: Returns the announcement of the failure of a task, by its name.
        why: The message of the failures.
    """
    for name in missing.without_end:
        reporter.report(TaskFailed, at, **final_failure(name, Cause.LOST, why))
    for name, attempt in missing.unannounced:
        reporter.announce(
            message(name), reporter.event(TaskFailed, at, **final_failure(name, Cause.LOST, why, attempt))
        )


def without_known_successes(
    missing: UnreportedFailures, run: Run, clears: int, remembers: Callable[[str], bool]
) -> UnreportedFailures:
    """
    Return the failures without the announcements of tasks that a launcher on this host saw succeed.

    After a clear the notes of the host say nothing about the last attempt.
    """
    if clears:
        return missing

    def has_succeeded(name: str) -> bool:
        attempts = (Attempt(run, name, number, number) for number in range(1, _MOST_ATTEMPTS))
        return any(remembers(SUCCEEDED + attempt.key) for attempt in attempts)

    unannounced = tuple(each for each in missing.unannounced if not has_succeeded(each[0]))
    return UnreportedFailures(missing.without_end, unannounced)
