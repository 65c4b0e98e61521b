"""
What a watcher asks the store: attempts and runs with their signs of life and alarms, durations, and missed starts.

Each question reads an index of the rows that it is about, since it is asked every second. Not here: the questions of
people (questions), and what follows from the answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Exists, Row, exists, or_, select

from dkist_processing_core.collect.keys import task_key
from dkist_processing_core.collect.questions.of_rows import alarm_in, alarms_in, identity_of
from dkist_processing_core.collect.reports.decoding import event_in
from dkist_processing_core.collect.tables import (
    ATTEMPTS,
    HAS_ALARM,
    IDENTITY,
    IS_ALARMED,
    IS_OPEN,
    IS_RUNNING,
    MISSED_STARTS,
    REPORTS,
    RUNS,
    WAS_MEASURED,
)
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State, kept_reports

LATEST_DURATIONS = 200
"""Of how many attempts of a task the durations are returned: the latest."""


@dataclass(frozen=True, slots=True)
class WatchedAttempt:
    """An attempt without an end, or about which an alarm stands; times are seconds since 1970."""

    run: Run
    task_name: str
    number: int | None
    max_attempts: int | None
    is_open: bool
    """False for an attempt that has ended, or whose run has ended."""
    started_at: float | None
    """The start of its process, by the clock of its host."""
    last_sign_at: float | None
    """The time of the last report of its launcher or its task, by the clock of their host."""
    last_received_at: float | None
    """When the last of these reports was received, by the clock of the store."""
    clock_difference: float | None
    """The smallest difference of reception and time of these reports, in seconds: at least that of both clocks."""
    sample_interval: float | None
    """The time between two samples as the attempt has announced it last, in seconds; None if it announces none."""
    overdue_after_seconds: float | None
    """The author's limit of its duration."""
    duration_seconds: float | None
    """Its duration as its launcher or its task reported it at the end."""
    alarms: tuple[TaskOverdue, ...]
    """The latest alarm of each kind, or its withdrawal."""


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A run without an end of which no attempt runs, or about which an alarm stands; times are seconds since 1970."""

    run: Run
    is_idle: bool
    """
    Whether it has no end, and no attempt of which the process has begun.

    An attempt that was dispatched waits for its environment; if its launcher dies then, nothing follows.
    """
    last_sign_at: float
    """The time of the last report on it except alarms, by the clock of the reporter."""
    last_received_at: float | None
    """When the last of these reports was received, by the clock of the store."""
    alarm: WorkflowOverdue | None
    """The latest alarm, or its withdrawal."""


def watched_attempts(
    connection: Connection, *, ended_since: float, complete_until: float = 0.0
) -> list[WatchedAttempt]:
    """
    Return the attempts without an end, and those about which an alarm stands, except those of stale runs.

    Args:
        connection: The connection to the store.
        ended_since: Of those that are not open, only those of runs with a report that was received since then.
        complete_until: When the store was last complete.
    """
    found = {}
    of_attempts = select(*(ATTEMPTS.c[name] for name in _OF_ATTEMPT), *IDENTITY).join_from(ATTEMPTS, RUNS)
    alarmed = of_attempts.where(IS_ALARMED, ~ATTEMPTS.c.is_open, RUNS.c.received_at >= ended_since)
    for query in (of_attempts.where(IS_OPEN), alarmed):
        for row in connection.execute(query.where(~_is_stale(complete_until))):
            found[row.run, row.place] = _attempt(row)
    return [found[key] for key in sorted(found)]


def watched_runs(
    connection: Connection, *, silent_since: float, ended_since: float, complete_until: float = 0.0
) -> list[WatchedRun]:
    """
    Return the runs without an end of which no attempt runs, and those with a standing alarm, except stale ones.

    Args:
        connection: The connection to the store.
        silent_since: Of those without an alarm, only those of which no report was received since then.
        ended_since: Of those that are not idle, only those with a report that was received since then.
        complete_until: When the store was last complete.
    """
    of_run = (ATTEMPTS.c.run == RUNS.c.number, IS_OPEN, ATTEMPTS.c.state == State.RUNNING)
    runs_one = exists(select(ATTEMPTS.c.run).where(*of_run))
    received_at = RUNS.c.sign_received_at
    of_runs = select(RUNS, runs_one.label("runs_one"))
    silent = of_runs.where(IS_RUNNING, ~runs_one, or_(received_at.is_(None), received_at < silent_since))
    # An idle run without a report since then is silent as well.
    alarmed = of_runs.where(HAS_ALARM, RUNS.c.received_at >= ended_since)
    found = {}
    for query in (silent, alarmed):
        for row in connection.execute(query.where(~_is_stale(complete_until))):
            found[row.number] = _run(row)
    return [found[number] for number in sorted(found)]


def _is_stale(complete_until: float) -> Exists:
    """
    Return the condition that reports on a run wait which had arrived when the store was last complete.

    They cannot be read together with the earlier ones: what the rows of this run do not show may have been reported.
    """
    return exists(select(REPORTS.c.run).where(REPORTS.c.run == RUNS.c.number, REPORTS.c.received_at <= complete_until))


def durations(connection: Connection, workflow_name: str, task_name: str, limit: int = LATEST_DURATIONS) -> list[float]:
    """Return the durations of the latest successful attempts of a task of any version, in seconds, the latest first."""
    of_task = (ATTEMPTS.c.task_key == task_key(workflow_name, task_name), WAS_MEASURED)
    query = select(ATTEMPTS.c.measured_seconds).where(*of_task).order_by(ATTEMPTS.c.ended_at.desc()).limit(limit)
    return list(connection.scalars(query))


def missed_starts(connection: Connection, since: datetime) -> list[WorkflowOverdue]:
    """Return the starts that were expected since a time, and missed, in the order of their times."""
    query = select(MISSED_STARTS.c.body).where(MISSED_STARTS.c.expected_at >= since.timestamp())
    return list(all_missed_starts(connection.scalars(query)))


def all_missed_starts(bodies: Iterator[bytes] | Sequence[bytes]) -> list[WorkflowOverdue]:
    """Return the missed starts in stored bodies, one for each, in an order that depends on their content alone."""
    events = [event for body in bodies if isinstance(event := event_in(body), WorkflowOverdue)]
    by_id: dict[str, list[WorkflowOverdue]] = {}
    for event in events:
        by_id.setdefault(event.id, []).append(event)
    chosen = [event for each in by_id.values() for event in kept_reports(each) if isinstance(event, WorkflowOverdue)]
    return sorted(chosen, key=lambda event: (event.expected_at or _EPOCH, event.id, event.reported_by))


_EPOCH = datetime.fromtimestamp(0, UTC)
# Not all, since there may be thousands of open attempts.
_OF_ATTEMPT = (
    *("run", "place", "task_name", "number", "max_attempts", "is_open", "started_at"),
    *("sign_at", "sign_received_at", "clock_difference", "sample_interval", "overdue_after", "measured_seconds"),
    "alarms",
)


def _attempt(row: Any) -> WatchedAttempt:
    return WatchedAttempt(
        run=identity_of(row),
        task_name=row.task_name,
        number=row.number,
        max_attempts=row.max_attempts,
        is_open=row.is_open,
        started_at=row.started_at,
        last_sign_at=row.sign_at,
        last_received_at=row.sign_received_at,
        clock_difference=row.clock_difference,
        sample_interval=row.sample_interval,
        overdue_after_seconds=row.overdue_after,
        duration_seconds=row.measured_seconds,
        alarms=alarms_in(row.alarms),
    )


def _run(row: Row[Any]) -> WatchedRun:
    return WatchedRun(
        run=identity_of(row),
        is_idle=row.state == State.RUNNING and not row.runs_one,
        last_sign_at=row.last_sign_at,
        last_received_at=row.sign_received_at,
        alarm=alarm_in(row.alarm),
    )
