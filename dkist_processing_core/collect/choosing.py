"""
The conditions by which a choice restricts runs, attempts and failures.

Not here: the choice itself (answers), and the questions (questions).
"""

from sqlalchemy import ColumnElement, Connection, TextClause, func, or_, select

from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.collect.keys import workflow_key
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS, TALLIES
from dkist_processing_core.consumer import matches

Condition = ColumnElement[bool] | TextClause


def of_identity(connection: Connection, choice: Choice) -> list[ColumnElement[bool]]:
    """Return the conditions on the identity of a run."""
    conditions: list[ColumnElement[bool]] = []
    if choice.workflow is not None:
        names = connection.scalars(select(TALLIES.c.workflow_name).distinct())
        keys = [workflow_key(name) for name in names if matches(choice.workflow, name)]
        conditions.append(RUNS.c.workflow_key.in_(keys))
    if choice.version is not None:
        conditions.append(RUNS.c.workflow_version == choice.version)
    if choice.recipe_run_id is not None:
        conditions.append(RUNS.c.recipe_run_id == choice.recipe_run_id)
    if choice.text is not None:
        # SQLite knows the case of the letters A to Z alone: others are found as they are written.
        wanted, columns = choice.text.lower(), (RUNS.c.run_id, RUNS.c.workflow_name)
        lowered = (func.lower(column).contains(wanted, autoescape=True) for column in columns)
        conditions.append(or_(*lowered, *(column.contains(choice.text, autoescape=True) for column in columns)))
    return conditions


def of_runs(connection: Connection, choice: Choice) -> list[Condition]:
    """Return the conditions on runs."""
    conditions: list[Condition] = [*of_identity(connection, choice), RUNS.c.state.is_not(None)]
    if choice.since is not None:
        conditions.append(RUNS.c.last_sign_at >= choice.since.timestamp())
    if choice.until is not None:
        conditions.append(RUNS.c.last_sign_at < choice.until.timestamp())
    if choice.states:
        conditions.append(RUNS.c.state.in_(choice.states))
    if choice.cause is not None:
        conditions.append(RUNS.c.number.in_(select(ATTEMPTS.c.run).where(ATTEMPTS.c.cause == choice.cause, HAS_FAILED)))
    if choice.family is not None:
        conditions.append(
            RUNS.c.number.in_(select(ATTEMPTS.c.run).where(ATTEMPTS.c.family == choice.family, HAS_FAILED))
        )
    return conditions


def of_failures(connection: Connection, choice: Choice) -> list[Condition]:
    """Return the conditions on failed attempts, all but those on their times."""
    conditions: list[Condition] = [*of_identity(connection, choice), HAS_FAILED]
    if choice.cause is not None:
        conditions.append(ATTEMPTS.c.cause == choice.cause)
    if choice.family is not None:
        conditions.append(ATTEMPTS.c.family == choice.family)
    return conditions
