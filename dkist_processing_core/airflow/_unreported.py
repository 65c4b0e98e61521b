"""
The unreported failures at the end of a run: tasks that failed for Airflow, without a report or a message about it.

The bus holds the earlier reports, and this host those that it could not deliver yet. If the bus cannot be read in time,
or another host has not delivered its reports yet, too many reports are published rather than too few: a message that
two hosts send has the same id, and the reports of task and launcher outrank those of Airflow. Not here: publishing them
(_runs), and reading the bus (_bus_reader) and the journal of this host (_pending_reports).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.airflow._bus_reader import reader_since
from dkist_processing_core.airflow._pending_reports import pending_reports
from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.events import Event, Reporter, TaskFailed, TaskFinished
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import AttemptView, RunState, State

_DELIVERY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class UnreportedFailures:
    """The names of failed tasks, in Airflow's order, each with its last attempt if that is known."""

    without_end: tuple[str, ...] = ()
    """Tasks whose last attempt has no end reported by task or launcher."""
    unannounced: tuple[tuple[str, int | None], ...] = ()
    """Tasks whose failure was not announced, and that their launcher has not seen succeed."""


def unreported_failures(run: Run, failed: Sequence[str] | None, *, since: datetime | None) -> UnreportedFailures:
    """
    Return the missing reports about the failed tasks of a run; its reports reach the bus from `since` on.

    If `failed` is None, the failed tasks are those that have begun and of whose success there is no report.
    """
    if failed is not None and not failed:
        return UnreportedFailures()
    pending: list[Event] = []
    # Before the bus: a report that is delivered meanwhile is found there.
    with errors_logged("failures are announced without the reports that wait on this host"):
        pending = pending_reports(run)
    with errors_logged("failures are announced without reading the bus"):
        reader = reader_since(run.workflow_name, since)
        if reader.has_read_backlog():
            found = _unreported_in([*pending, *reader.reports], run, failed)
            # Another host may be delivering its reports and its message just now.
            until = time.monotonic() + _DELIVERY_SECONDS
            while (found.without_end or found.unannounced) and time.monotonic() < until and reader.can_wait_longer():
                found = _unreported_in([*pending, *reader.reports], run, failed)
            return found
    return _unreported_in(pending, run, failed)


def _unreported_in(received: Sequence[Event], run: Run, failed: Sequence[str] | None) -> UnreportedFailures:
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
