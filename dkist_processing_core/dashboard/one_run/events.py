"""
The reports on a run as they arrived, with marks at those that contradict others or have an implausible time.

Not here: the text of a report (runs.wording.facts).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.events import Event, TaskEnd, TaskEvent
from dkist_processing_core.runs import RunView
from dkist_processing_core.runs.wording.facts import facts


@dataclass(frozen=True, slots=True)
class EventRow:
    """A report."""

    time: datetime
    reporter: str
    name: str
    task_name: str | None
    attempt: int | None
    text: str
    marks: Sequence[str]
    """What a reader is to know about it."""


def event_rows(reports: Sequence[Event], view: RunView) -> list[EventRow]:
    """Return the rows of some reports on a run."""
    contradictions = [
        (task.name, end) for task in view.tasks for attempt in task.attempts for end in attempt.contradictions
    ]
    rows = []
    for report in reports:
        marks = []
        if report in view.implausible:
            marks.append("its time is not plausible, and has no effect")
        if isinstance(report, TaskEnd):
            if (report.task_name, report) in contradictions:
                marks.append("contradicts the outcome")
            if report.provisional:
                marks.append("provisional")
        rows.append(
            EventRow(
                report.time,
                report.reported_by.value,
                report.name,
                report.task_name if isinstance(report, TaskEvent) else None,
                report.attempt if isinstance(report, TaskEvent) else None,
                facts(report),
                marks,
            )
        )
    return rows
