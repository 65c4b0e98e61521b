"""
For which failed tasks of a run nobody has sent the established failure message yet.

What the bus holds of the run tells: whether the launcher saw the task succeed, and whether the engine announced its
failure when it happened. Where the bus cannot be read all are owed: a message that comes twice has the same id, and one
that never comes is lost. Not here: sending (_runs).
"""

from collections.abc import Sequence
from datetime import datetime

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event, Reporter, TaskFailed, TaskFinished
from dkist_processing_core.identity import Run
from dkist_processing_core.lifecycle import never_breaking
from dkist_processing_core.replay import replayed
from dkist_processing_core.runs import AttemptView, RunState


def owed(run: Run, failed: Sequence[str], *, since: datetime | None) -> list[str]:
    """Return those of the failed tasks whose failure is still to be announced."""
    if not failed:
        return []
    reports = _reports_of(run, since)
    view = RunState(reports).run(run.run_id)
    last = {task.name: task.attempts[-1] for task in view.tasks if task.attempts} if view is not None else {}
    return [name for name in failed if name not in last or not _is_settled(last[name], reports, name)]


def _is_settled(attempt: AttemptView, reports: Sequence[Event], name: str) -> bool:
    if isinstance(attempt.end, TaskFinished) and not attempt.end.provisional:
        return True
    return any(
        isinstance(report, TaskFailed)
        and (report.reported_by, report.task_name, report.attempt) == (Reporter.ENGINE, name, attempt.number)
        and report.attempt is not None
        and report.final is True
        for report in reports
    )


def _reports_of(run: Run, since: datetime | None) -> list[Event]:
    reports: list[Event] = []
    with never_breaking("failures are announced without a look at the bus"):
        settings, _ = DKISTProcessingCoreConfiguration.read_leniently()
        reports += (
            event
            for event in replayed(settings, workflow=run.workflow_name, every_report=True, since=since)
            if (event.workflow_version, event.run_id) == (run.workflow_version, run.run_id)
        )
    return reports
