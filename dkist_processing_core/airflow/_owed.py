"""
What is still to be said of the tasks that a run's engine calls failed, as far as the bus tells what was said already.

Where the bus cannot be read in time, or has not got it yet, too much is said rather than too little: a message that two
hosts send has the same id, and a report of the engine gives way to those who stood nearer. Not here: saying it (_runs),
and how the bus is read (_look).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.airflow._look import look_at
from dkist_processing_core.events import Event, Reporter, TaskFailed, TaskFinished
from dkist_processing_core.identity import Run
from dkist_processing_core.reporter import never_breaking
from dkist_processing_core.runs import AttemptView, RunState, State

_ON_ITS_WAY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Owed:
    """The names of failed tasks, in the engine's order, each with its last attempt where that is known."""

    untold: tuple[str, ...] = ()
    """Those whose last attempt has no end by task or launcher."""
    unannounced: tuple[tuple[str, int | None], ...] = ()
    """Those whose failure nobody has announced, and whose launcher has not seen them succeed."""


def owed(run: Run, failed: Sequence[str] | None, *, since: datetime | None) -> Owed:
    """
    Return what is owed of the failed tasks of a run, whose reports began to reach the bus at `since`.

    Where nobody says which those are, they are the tasks that have begun and of whose good end the bus holds nothing.
    """
    if failed is not None and not failed:
        return Owed()
    with never_breaking("failures are announced without a look at the bus"):
        look = look_at(run.workflow_name, since)
        if look is not None and look.is_read():
            found = _owed(run, failed, look.reports)
            # A host may be about to bring its reports and its message to the bus just now.
            until = time.monotonic() + _ON_ITS_WAY_SECONDS
            while (found.untold or found.unannounced) and time.monotonic() < until and look.has_patience():
                found = _owed(run, failed, look.reports)
            return found
    return _owed(run, failed, [])


def _owed(run: Run, failed: Sequence[str] | None, heard: Sequence[Event]) -> Owed:
    reports = [
        event for event in list(heard) if (event.workflow_version, event.run_id) == (run.workflow_version, run.run_id)
    ]
    view = RunState(reports).run(run.run_id)
    last = {task.name: task.attempts[-1] for task in view.tasks if task.attempts} if view is not None else {}
    if failed is None:
        failed = [name for name, attempt in last.items() if attempt.state not in (State.FINISHED, State.SKIPPED)]
    return Owed(
        untold=tuple(name for name in failed if name not in last or not _is_told(last[name])),
        unannounced=tuple(
            (name, last[name].number if name in last else None)
            for name in failed
            if name not in last or not _is_settled(last[name], reports, name)
        ),
    )


def _is_told(attempt: AttemptView) -> bool:
    return attempt.end is not None and not attempt.end.provisional


def _is_settled(attempt: AttemptView, reports: Sequence[Event], name: str) -> bool:
    if isinstance(attempt.end, TaskFinished) and _is_told(attempt):
        return True
    # The engine calls a failure final only together with its announcement.
    return any(
        isinstance(report, TaskFailed)
        and (report.reported_by, report.task_name, report.attempt) == (Reporter.ENGINE, name, attempt.number)
        and report.attempt is not None
        and report.final is True
        for report in reports
    )
