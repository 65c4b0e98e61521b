"""
The alarms of watchers about a run: which of them stand.

An alarm is no sign of life, and changes no state. Not here: raising and withdrawing alarms, and the state itself
(_derivation).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dkist_processing_core.events import Event, TaskOverdue, WorkflowOverdue, encode
from dkist_processing_core.runs._views import AttemptView, State

Alarm = TaskOverdue | WorkflowOverdue
# A check against a union takes several times as long.
ALARMS = (TaskOverdue, WorkflowOverdue)
_Kind = str | None
_AlarmT = TypeVar("_AlarmT", TaskOverdue, WorkflowOverdue)


def precedence(report: Event) -> tuple[bool, int, bytes]:
    """Return which of two reports on one occurrence counts, alike everywhere: firm ones first, by fields, by bytes."""
    stated = sum(getattr(report, name) is not None for name in report.__struct_fields__)
    return not getattr(report, "provisional", False), stated, encode(report)


def kind_of(alarm: Alarm) -> _Kind:
    """Return what is overdue about its subject; an alarm of one kind withdraws none of another kind."""
    return alarm.exceeded if isinstance(alarm, TaskOverdue) else None


def latest_alarms(alarms: Iterable[_AlarmT]) -> list[_AlarmT]:
    """Return the latest alarm of each kind about one subject, which may withdraw the one before."""
    latest: dict[_Kind, _AlarmT] = {}
    for each in sorted((alarm for alarm in alarms if alarm.sequence is not None), key=_order):
        latest[kind_of(each)] = each
    return sorted(latest.values(), key=_order)


def standing(alarms: Iterable[_AlarmT]) -> _AlarmT | None:
    """Return the alarm about one subject that stands; of several kinds, the latest."""
    return next((alarm for alarm in reversed(latest_alarms(alarms)) if not alarm.withdrawn), None)


def _order(alarm: Alarm) -> tuple[int, tuple[bool, int, bytes]]:
    return alarm.sequence or 0, precedence(alarm)


def with_alarms(attempts: Mapping[str, list[AttemptView]], alarms: Sequence[Alarm]) -> dict[str, list[AttemptView]]:
    """Return the attempts of each task, those without an end with the alarms about them."""
    about: dict[tuple[str, int | None], list[TaskOverdue]] = defaultdict(list)
    for alarm in alarms:
        if isinstance(alarm, TaskOverdue):
            about[alarm.task_name, alarm.attempt].append(alarm)
    return {
        name: [
            attempt
            if attempt.state.is_end or (name, attempt.number) not in about
            else replace(attempt, overdue=standing(about[name, attempt.number]))
            for attempt in of_task
        ]
        for name, of_task in attempts.items()
    }


def alarm_of_run(state: State, alarms: Iterable[Alarm]) -> WorkflowOverdue | None:
    """Return the alarm about a run as a whole that stands; None for a run that has ended."""
    return None if state.is_end else standing([alarm for alarm in alarms if isinstance(alarm, WorkflowOverdue)])
