"""
The text about an alarm that stands: since when an attempt or a run is overdue, and for how long it is silent or runs.

Not here: the event of the alarm as a line of a list (draw.facts).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.text import duration
from dkist_processing_core.text.console import ATTENTION

_SAME_DAY, _OTHER_DAY = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"


def alarm_of(
    overdue: TaskOverdue | WorkflowOverdue | None, now: datetime, zone: tzinfo | None
) -> Iterator[tuple[str, str]]:
    """Yield the text about an alarm with its style; nothing without an alarm."""
    if overdue is None:
        return
    limit = overdue.limit_seconds or 0.0
    try:
        counted_from = datetime.fromtimestamp((overdue.sequence or 0) // 2 / 1000, UTC)
        since = counted_from + timedelta(seconds=limit)
    except (OverflowError, OSError, ValueError):
        # Another publisher may number its alarms otherwise.
        counted_from = since = overdue.time
    form = _SAME_DAY if timedelta(0) <= now - since < timedelta(hours=12) else _OTHER_DAY
    lasts = duration(max(0.0, (now - counted_from).total_seconds()))
    if isinstance(overdue, WorkflowOverdue):
        what = f"no attempt and no report for {lasts}"
    else:
        what = f"{'running' if overdue.exceeded == 'duration' else 'silent'} for {lasts}"
    yield f"! overdue since {local_time(since, form, zone)}: {what}, limit {duration(limit)}", ATTENTION
