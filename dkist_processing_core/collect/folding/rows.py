"""
The rows of one run, derived from its reports: the run, its tasks and its attempts.

A pure function: the order and the repetition of the reports do not change the rows. Not here: reading the reports and
writing the rows (collect.store).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from dkist_processing_core.collect.folding.signs import Key, Signs
from dkist_processing_core.collect.folding.use import has_died, used_by
from dkist_processing_core.collect.keys import task_key, workflow_key
from dkist_processing_core.events import (
    Event,
    Reporter,
    TaskDispatched,
    TaskEvent,
    TaskFailed,
    TaskOverdue,
    TaskSampled,
    TaskStarted,
    WorkflowOverdue,
    encode,
    family_by,
)
from dkist_processing_core.runs import ALARMS, AttemptView, RunView, State, latest_alarms

_Row = dict[str, Any]
_OPEN = (State.DISPATCHED, State.RUNNING)
# A check against a union takes several times as long.
_WITH_HOST = (TaskStarted, TaskSampled)


@dataclass(frozen=True, slots=True)
class RowsOfRun:
    """
    The values that are derived from the reports on one run; times are seconds since 1970, in UTC.

    All tasks have the same columns in the same order, and so have all attempts.
    """

    run: _Row
    tasks: list[_Row]
    attempts: list[_Row]


def rows_of(
    view: RunView, kept: Sequence[Event], received_at: datetime, signs: Mapping[Key, Signs] = MappingProxyType({})
) -> RowsOfRun:
    """
    Return the rows of a run.

    Args:
        view: The run, as `run_view` derives it.
        kept: The reports on the run, as `kept_reports` returns them.
        received_at: When the last of them was received, by which their times are judged.
        signs: The signs of life of the attempts.
    """
    implausible = set(map(id, view.implausible))
    times = [event.time for event in kept if not isinstance(event, ALARMS) and id(event) not in implausible]
    alarms = latest_alarms(event for event in kept if isinstance(event, WorkflowOverdue))
    began_at, ended_at = view.started_at, view.ended_at or _last_end(view)
    # Without a plausible time, the run is as old as its last report.
    last_sign_at = max(times, default=received_at)
    duration = None
    if began_at is not None and ended_at is not None and view.is_start_known:
        duration = max(0.0, (ended_at - began_at).total_seconds())
    run = {
        "recipe_run_id": view.run.recipe_run_id,
        "state": view.state.value,
        "verdict": None if view.verdict is None else view.verdict.value,
        "reason": view.reason,
        "began_at": _seconds(began_at),
        "is_start_known": view.is_start_known,
        "ended_at": _seconds(ended_at),
        "last_sign_at": _seconds(last_sign_at),
        "workflow_key": workflow_key(view.run.workflow_name),
        "begin_order": _seconds(began_at or last_sign_at),
        "duration_order": -1.0 if duration is None else duration,
        **_alarm_columns(alarms, "alarm", "has_alarm"),
    }
    tasks = [
        {"place": place, "name": task.name, "state": task.state.value, "engine_state": task.engine_state}
        for place, task in enumerate(view.tasks)
    ]
    known = _Known(kept, view, received_at)
    of_tasks = [(task, attempt) for task in view.tasks for attempt in task.attempts]
    attempts = [
        {
            "place": place,
            **known.row(task.name, attempt, is_last=attempt is task.attempts[-1]),
            **_watched(view.run.workflow_name, task.name, attempt, signs.get((task.name, attempt.number))),
            **_alarm_columns(known.alarms_of(task.name, attempt), "alarms", "is_alarmed"),
        }
        for place, (task, attempt) in enumerate(of_tasks)
    ]
    return RowsOfRun(run, tasks, attempts)


def _last_end(view: RunView) -> datetime | None:
    """Return the end of the last attempt of a run that has ended without a report of its end."""
    if not view.state.is_end or view.verdict is not None:
        return None
    ends = [attempt.ended_at for task in view.tasks for attempt in task.attempts if attempt.ended_at is not None]
    return max(ends, default=None)


class _Known:
    """The facts in the reports on a run that the view of an attempt leaves out."""

    def __init__(self, reports: Iterable[Event], view: RunView, received_at: datetime) -> None:
        self._is_running = view.state is State.RUNNING
        self._received_at = received_at
        self._hosts: dict[tuple[str, int | None], str] = {}
        self._queues: dict[tuple[str, int | None], str] = {}
        self._queued: dict[tuple[str, int | None], float] = {}
        self._most: dict[tuple[str, int | None], int] = {}
        self._signs: dict[tuple[str, int | None], datetime] = {}
        self._alarms: dict[tuple[str, int | None], list[TaskOverdue]] = {}
        implausible = set(map(id, view.implausible))
        for event in reports:
            if not isinstance(event, TaskEvent):
                continue
            key = (event.task_name, event.attempt)
            if isinstance(event, TaskOverdue):
                self._alarms.setdefault(key, []).append(event)
                continue
            if event.max_attempts is not None:
                self._most[key] = max(self._most.get(key, 0), event.max_attempts)
            if isinstance(event, TaskDispatched):
                if event.queue is not None:
                    self._queues[key] = max(self._queues.get(key, ""), event.queue)
                if event.queued_seconds is not None:
                    self._queued[key] = max(self._queued.get(key, 0.0), event.queued_seconds)
            elif isinstance(event, _WITH_HOST) and event.host is not None:
                self._hosts[key] = max(self._hosts.get(key, ""), event.host)
            if id(event) not in implausible:
                self._signs[key] = max(self._signs.get(key, event.time), event.time)

    def alarms_of(self, task_name: str, attempt: AttemptView) -> list[TaskOverdue]:
        """Return the latest alarm of each kind about an attempt."""
        return latest_alarms(self._alarms.get((task_name, attempt.number), ()))

    def row(self, task_name: str, attempt: AttemptView, *, is_last: bool) -> _Row:
        key, progress = (task_name, attempt.number), attempt.progress
        sign = self._signs.get(key)
        return {
            "task_name": task_name,
            "number": attempt.number,
            "max_attempts": self._most.get(key),
            "state": attempt.state.value,
            "is_open": self._is_running and attempt.state in _OPEN,
            "is_last": is_last,
            "dispatched_at": _seconds(attempt.dispatched_at),
            "started_at": _seconds(attempt.started_at),
            "ended_at": _seconds(attempt.ended_at),
            "last_sign_at": _seconds(sign),
            "duration_seconds": attempt.duration_seconds,
            "queued_seconds": self._queued.get(key),
            "preparation_seconds": attempt.preparation_seconds,
            "host": self._hosts.get(key),
            "done": None if progress is None else float(progress.done),
            "total": None if progress is None or progress.total is None else float(progress.total),
            "unit": None if progress is None else progress.unit,
            "note": None if progress is None else progress.note,
            "queue": self._queues.get(key),
            "died": has_died(attempt),
            **used_by(attempt),
            **_failure(task_name, attempt, attempt.ended_at or sign or self._received_at),
        }


def _watched(workflow_name: str, task_name: str, attempt: AttemptView, signs: Signs | None) -> _Row:
    """Return the columns by which a watcher judges an attempt."""
    sample, end = attempt.sample, attempt.end
    is_measured = end is not None and end.reported_by in (Reporter.LAUNCHER, Reporter.TASK)
    return {
        "sign_at": None if signs is None else signs.at,
        "sign_received_at": None if signs is None else signs.received_at,
        "clock_difference": None if signs is None else signs.clock_difference,
        "sample_interval": attempt.sample_seconds if sample is None else sample.interval_seconds,
        "overdue_after": attempt.overdue_after_seconds,
        "measured_seconds": attempt.duration_seconds if is_measured else None,
        "task_key": task_key(workflow_name, task_name),
    }


def _alarm_columns(alarms: Sequence[TaskOverdue | WorkflowOverdue], name: str, whether: str) -> _Row:
    bodies = b"\n".join(map(encode, alarms))
    return {name: bodies or None, whether: any(not alarm.withdrawn for alarm in alarms)}


def _failure(task_name: str, attempt: AttemptView, failed_at: datetime) -> _Row:
    """Return the columns of a failure, which are empty for every other attempt."""
    if attempt.state is not State.FAILED:
        return dict.fromkeys(("cause", "family", "summary", "log_url", "failed_at"))
    end = attempt.end if isinstance(attempt.end, TaskFailed) else None
    return {
        "cause": attempt.cause,
        "family": family_by(task_name, attempt.cause) if end is None else end.family,
        "summary": f"{attempt.cause}: its end was not reported" if end is None else end.summary,
        "log_url": None if end is None else end.log_url,
        "failed_at": _seconds(failed_at),
    }


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
