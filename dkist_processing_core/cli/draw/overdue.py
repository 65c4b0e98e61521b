"""
The text about an alarm that stands: since when an attempt or a run is overdue, and for how long it is silent or runs.

Not here: its values (runs.wording.overdue), and the event of the alarm as a line of a list (runs.wording.facts).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.runs.wording.overdue import standing_alarm
from dkist_processing_core.text.console import ATTENTION

_SAME_DAY, _OTHER_DAY = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"


def alarm_of(
    overdue: TaskOverdue | WorkflowOverdue | None, now: datetime, zone: tzinfo | None
) -> Iterator[tuple[str, str]]:
    """Yield the text about an alarm with its style; nothing without an alarm."""
    if overdue is None:
        return
    alarm = standing_alarm(overdue, now)
    form = _SAME_DAY if timedelta(0) <= now - alarm.since < timedelta(hours=12) else _OTHER_DAY
    yield f"! overdue since {local_time(alarm.since, form, zone)}: {alarm.what}, limit {alarm.limit}", ATTENTION
