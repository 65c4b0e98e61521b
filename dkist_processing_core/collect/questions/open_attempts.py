"""
Attempts without an end: all of a choice, and those about which an alarm stands.

Not here: those that a watcher asks about (watched).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from dkist_processing_core.collect.questions.answers import Choice, StoredAttempt
from dkist_processing_core.collect.questions.choosing import of_identity
from dkist_processing_core.collect.questions.of_rows import ALL_ATTEMPTS, attempt_of
from dkist_processing_core.collect.tables import ATTEMPTS, IS_ALARMED, IS_OPEN, RUNS
from dkist_processing_core.runs import State

_IS_OF_RUNNING = RUNS.c.state == State.RUNNING
_SIGN = func.coalesce(ATTEMPTS.c.last_sign_at, RUNS.c.last_sign_at)
_OLDEST = (
    func.coalesce(ATTEMPTS.c.dispatched_at, ATTEMPTS.c.started_at, _SIGN),
    ATTEMPTS.c.run,
    ATTEMPTS.c.place,
)


def open_attempts(
    connection: Connection, choice: Choice, silent_since: datetime | None, limit: int | None
) -> list[StoredAttempt]:
    """Return the attempts without an end; see `Questions.open_attempts`."""
    chosen: list[ColumnElement[bool]] = [*of_identity(connection, choice, is_of_few=True)]
    if choice.since is not None:
        chosen.append(choice.since.timestamp() <= _SIGN)
    if silent_since is not None:
        chosen.append(silent_since.timestamp() > _SIGN)
    if choice.states:
        chosen.append(ATTEMPTS.c.state.in_(choice.states))
    return _oldest(connection, ALL_ATTEMPTS.where(IS_OPEN, _IS_OF_RUNNING, *chosen), limit)


def number_of_open(connection: Connection) -> int:
    """Return the number of attempts without an end."""
    query = select(func.count()).select_from(ATTEMPTS.join(RUNS)).where(IS_OPEN, _IS_OF_RUNNING)
    return connection.scalar(query) or 0


def overdue(connection: Connection, limit: int) -> tuple[list[StoredAttempt], int]:
    """Return the attempts without an end about which an alarm stands; see `Questions.overdue_attempts`."""
    # Without the condition of the index of all open ones, of which there may be many more.
    chosen = (IS_ALARMED, ATTEMPTS.c.is_open.is_(True), _IS_OF_RUNNING)
    total = connection.scalar(select(func.count()).select_from(ATTEMPTS.join(RUNS)).where(*chosen)) or 0
    return _oldest(connection, ALL_ATTEMPTS.where(*chosen), limit), total


def _oldest(connection: Connection, query: Select[Any], limit: int | None) -> list[StoredAttempt]:
    return [attempt_of(row) for row in connection.execute(query.order_by(*_OLDEST).limit(limit))]
