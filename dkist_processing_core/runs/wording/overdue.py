"""
What an alarm that stands means: since when an attempt or a run is overdue, and for how long it is silent or runs.

Not here: the event of the alarm as a line of a list (facts).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.text import duration


@dataclass(frozen=True, slots=True)
class StandingAlarm:
    """An alarm as values for a text."""

    since: datetime
    """When the limit was exceeded."""
    what: str
    """What exceeds it, and how long by now: `silent for 12 min 30 s`."""
    limit: str


def standing_alarm(overdue: TaskOverdue | WorkflowOverdue, now: datetime) -> StandingAlarm:
    """Return what an alarm means at `now`."""
    limit = overdue.limit_seconds or 0.0
    try:
        counted_from = datetime.fromtimestamp((overdue.sequence or 0) // 2 / 1000, UTC)
        since = counted_from + timedelta(seconds=limit)
    except (OverflowError, OSError, ValueError):
        # Another publisher may number its alarms otherwise.
        counted_from = since = overdue.time
    lasts = duration(max(0.0, (now - counted_from).total_seconds()))
    if isinstance(overdue, WorkflowOverdue):
        what = f"no attempt and no report for {lasts}"
    else:
        what = f"{'running' if overdue.exceeded == 'duration' else 'silent'} for {lasts}"
    return StandingAlarm(since, what, duration(limit))
