"""
What the store of runs adds to what is counted: the hosts of failures, and which alarms have ended.

The store may lag behind what is counted, and may have no runs at all. Then a notice has less. Not here: the first
failure of a family (collect.families).
"""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, exists, select

from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS
from dkist_processing_core.notify.occurrences import Alarm
from dkist_processing_core.runs import State

_MOST_HOSTS = 20


def hosts(connection: Connection, family: str, since: float) -> list[str]:
    """Return the hosts of a family's failures since a time, as far as they are known."""
    query = (
        select(ATTEMPTS.c.host)
        .distinct()
        .where(HAS_FAILED, ATTEMPTS.c.family == family, ATTEMPTS.c.failed_at >= since, ATTEMPTS.c.host.is_not(None))
        .order_by(ATTEMPTS.c.host)
        .limit(_MOST_HOSTS)
    )
    return list(connection.scalars(query))


def ended(connection: Connection, alarms: Iterable[Alarm]) -> set[str]:
    """Return the keys of those alarms whose attempt or run has ended, or whose missed start was made up for."""
    return {alarm.key for alarm in alarms if _has_ended(connection, alarm)}


def _has_ended(connection: Connection, alarm: Alarm) -> bool:
    conditions: list[ColumnElement[bool]] = [RUNS.c.workflow_name == alarm.workflow]
    if alarm.expected_at is not None:
        conditions += [RUNS.c.began_at > alarm.expected_at, RUNS.c.last_sign_at > alarm.expected_at]
        conditions += [RUNS.c.workflow_version == alarm.version] if alarm.version else []
        return bool(connection.scalar(select(exists(select(RUNS.c.number).where(*conditions)))))
    conditions += [RUNS.c.workflow_version == alarm.version, RUNS.c.run_id == alarm.run_id]
    query = select(RUNS.c.number).where(*conditions, RUNS.c.state != State.RUNNING)
    if alarm.task is not None:
        is_open = select(ATTEMPTS.c.run).where(
            ATTEMPTS.c.run == RUNS.c.number,
            ATTEMPTS.c.task_name == alarm.task,
            ATTEMPTS.c.number == alarm.attempt,
            ATTEMPTS.c.is_open,
        )
        query = select(RUNS.c.number).where(*conditions, ~exists(is_open))
    return bool(connection.scalar(select(exists(query))))
