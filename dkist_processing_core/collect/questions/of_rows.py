"""
Rows of runs and attempts as answers.

Not here: which rows (choosing), and the questions (questions).
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.questions.answers import StoredAttempt, StoredRun
from dkist_processing_core.collect.reports.decoding import event_in
from dkist_processing_core.collect.tables import ATTEMPTS, IDENTITY, RUNS, TASKS
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State, standing

# In a run that goes on, another attempt follows as long as there are any left.
IS_FINAL = and_(
    ATTEMPTS.c.is_last.is_(True),
    or_(
        RUNS.c.state != State.RUNNING,
        ATTEMPTS.c.number.is_(None),
        ATTEMPTS.c.max_attempts.is_(None),
        ATTEMPTS.c.number >= ATTEMPTS.c.max_attempts,
    ),
)
"""The condition that an attempt is the last of its task: none has followed, and none is to follow."""
ALL_ATTEMPTS = select(
    ATTEMPTS,
    IS_FINAL.label("is_final"),
    *IDENTITY,
).select_from(ATTEMPTS.join(RUNS))
"""The rows that `attempt_of` takes."""
_TIMES = ("dispatched_at", "started_at", "ended_at", "last_sign_at", "failed_at")
_PLAIN = (
    "task_name",
    "number",
    "max_attempts",
    "is_final",
    "duration_seconds",
    "host",
    "done",
    "total",
    "unit",
    "note",
)
_OF_FAILURE = ("cause", "family", "summary", "log_url")


def runs_of(connection: Connection, query: Select[Any], most_failures: int | None = 0) -> list[StoredRun]:
    """
    Return the runs of a query for whole rows, with the states of their tasks.

    Args:
        connection: The connection to the store.
        query: The query.
        most_failures: The largest number of failures that are read of each run; None for all.
    """
    rows = connection.execute(query).all()
    tasks: dict[int, dict[State, int]] = defaultdict(dict)
    failures: dict[int, list[StoredAttempt]] = defaultdict(list)
    for part in in_parts([row.number for row in rows]):
        tally = select(TASKS.c.run, TASKS.c.state, func.count()).where(TASKS.c.run.in_(part))
        for number, state, count in connection.execute(tally.group_by(TASKS.c.run, TASKS.c.state)):
            tasks[number][State(state)] = count
        for row in () if most_failures == 0 else connection.execute(_failures(part, most_failures)):
            failures[row.run].append(attempt_of(row))
    return [_run_of(row, tasks[row.number], failures[row.number]) for row in rows]


def _failures(runs: Sequence[int], most: int | None) -> Select[Any]:
    """Return the query for the last attempts of tasks that have failed, of each run the first ones."""
    # With the condition of the indexes of failures, PostgreSQL would read all failures of the store.
    chosen = ATTEMPTS.c.run.in_(runs), ATTEMPTS.c.is_last.is_(True), ATTEMPTS.c.state == State.FAILED
    query = ALL_ATTEMPTS.where(*chosen).order_by(ATTEMPTS.c.run, ATTEMPTS.c.place)
    if most is None:
        return query
    # An attempt has many columns, and a mapped task may have failed in thousands of instances.
    rank = func.row_number().over(partition_by=ATTEMPTS.c.run, order_by=ATTEMPTS.c.place).label("rank")
    ranked = select(ATTEMPTS.c.run, ATTEMPTS.c.place, rank).where(*chosen).subquery()
    is_same = and_(ATTEMPTS.c.run == ranked.c.run, ATTEMPTS.c.place == ranked.c.place)
    return query.join(ranked, is_same).where(ranked.c.rank <= most)


def attempt_of(row: Row[Any]) -> StoredAttempt:
    """Return the attempt of a row."""
    values = row._mapping  # noqa: SLF001 - this is how SQLAlchemy names it, since a column could have any name
    facts: dict[str, Any] = {name: values[name] for name in (*_PLAIN, *_OF_FAILURE)}
    facts |= {name: moment_of(values[name]) for name in _TIMES}
    overdue = standing(alarms_in(row.alarms)) if row.is_open else None
    return StoredAttempt(run=identity_of(row), state=State(row.state), overdue=overdue, **facts)


def _run_of(row: Row[Any], tasks: dict[State, int], failures: Sequence[StoredAttempt]) -> StoredRun:
    return StoredRun(
        number=row.number,
        run=identity_of(row),
        state=State(row.state),
        verdict=None if row.verdict is None else State(row.verdict),
        reason=row.reason,
        began_at=moment_of(row.began_at),
        # It is missing until the run is derived again after a migration.
        is_start_known=row.is_start_known is not False,
        ended_at=moment_of(row.ended_at),
        last_sign_at=known_moment(row.last_sign_at),
        overdue=standing(filter(None, [alarm_in(row.alarm)])) if row.state == State.RUNNING else None,
        tasks={state: tasks[state] for state in State if state in tasks},
        failures=tuple(failures),
    )


def identity_of(row: Row[Any]) -> Run:
    """Return the run that a row names."""
    return Run(row.workflow_name, row.workflow_version, row.run_id, row.recipe_run_id)


def alarm_in(body: bytes | None) -> WorkflowOverdue | None:
    """Return the alarm about a run in its column."""
    alarm = None if body is None else event_in(body)
    return alarm if isinstance(alarm, WorkflowOverdue) else None


@lru_cache(maxsize=4096)  # a watcher asks each second, and an alarm stands for hours
def alarms_in(bodies: bytes | None) -> tuple[TaskOverdue, ...]:
    """Return the alarms about an attempt in its column."""
    events = map(event_in, bodies.splitlines() if bodies else ())
    return tuple(event for event in events if isinstance(event, TaskOverdue))


def moment_of(seconds: float | None) -> datetime | None:
    """Return the time in a column; None for none."""
    return None if seconds is None else known_moment(seconds)


def known_moment(seconds: float) -> datetime:
    """Return the time in a column that has one."""
    return datetime.fromtimestamp(seconds, UTC)
