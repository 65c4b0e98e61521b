"""
What the store of runs adds to what is counted: the hosts of failures, and which alarms have ended.

The store may lag behind what is counted, and may have no runs at all. Then a notice has less. Not here: the first
failure of a family (collect.questions.families).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, exists, select

from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS
from dkist_processing_core.notify.occurrences import Alarm
from dkist_processing_core.runs import State

_MOST_HOSTS = 20
# SQLite accepts 999 parameters in a statement before its release 3.32.
_STEP = 200


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


def ended(connection: Connection, alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return those alarms whose attempt or run has ended, or whose missed start was made up for."""
    missed = [alarm for alarm in alarms if alarm.expected_at is not None]
    others = [alarm for alarm in alarms if alarm.expected_at is None]
    steps = [others[first : first + _STEP] for first in range(0, len(others), _STEP)]
    found = [alarm for step in steps for alarm in _ended(connection, step)]
    return [*found, *(alarm for alarm in missed if _has_begun(connection, alarm))]


def _ended(connection: Connection, alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return the alarms whose run has ended, or whose attempt is in the store and not open."""
    runs = [run_identity(alarm.workflow, alarm.version, alarm.run_id) for alarm in alarms]
    tasks = {alarm.task for alarm in alarms}
    of_attempt = and_(ATTEMPTS.c.run == RUNS.c.number, ATTEMPTS.c.task_name.in_(tasks))
    query = (
        select(RUNS.c.identity, RUNS.c.state, ATTEMPTS.c.task_name, ATTEMPTS.c.number, ATTEMPTS.c.is_open)
        .join_from(RUNS, ATTEMPTS, of_attempt, isouter=True)
        .where(RUNS.c.identity.in_(runs))
    )
    over, closed = set[bytes](), set[tuple[bytes, str, int | None]]()
    for row in connection.execute(query):
        # A run without a state is not folded yet.
        if row.state not in (None, State.RUNNING):
            over.add(row.identity)
        if row.is_open is False:
            closed.add((row.identity, row.task_name, row.number))
    found = []
    for alarm, identity in zip(alarms, runs, strict=True):
        if identity in over or (alarm.task is not None and (identity, alarm.task, alarm.attempt) in closed):
            found.append(alarm)
    return found


def _has_begun(connection: Connection, alarm: Alarm) -> bool:
    conditions = [RUNS.c.workflow_name == alarm.workflow, RUNS.c.last_sign_at > alarm.expected_at]
    conditions += [RUNS.c.began_at > alarm.expected_at]
    conditions += [RUNS.c.workflow_version == alarm.version] if alarm.version else []
    return bool(connection.scalar(select(exists(select(RUNS.c.number).where(*conditions)))))
