"""
The conditions by which a choice restricts runs, attempts and failures.

Not here: the choice itself (answers), and the questions (questions).
"""

from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, TextClause, UnaryExpression, or_, select, union
from sqlalchemy.sql.operators import custom_op

from dkist_processing_core.collect.keys import workflow_key
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS, TALLIES
from dkist_processing_core.consumer import matches
from dkist_processing_core.identity.short_ids import SHORT, characters_of

_T = TypeVar("_T")
Condition = ColumnElement[bool] | TextClause


def of_identity(connection: Connection, choice: Choice, *, is_of_few: bool = False) -> list[ColumnElement[bool]]:
    """
    Return the conditions on the identity of a run.

    Args:
        connection: The connection to the store.
        choice: The choice.
        is_of_few: Whether few runs or attempts are chosen by other conditions. SQLite would otherwise read all runs of
            a workflow with their attempts, and compare those with the other conditions.
    """
    conditions: list[ColumnElement[bool]] = []
    if choice.workflow is not None:
        key = without_index(connection, RUNS.c.workflow_key) if is_of_few else RUNS.c.workflow_key
        conditions.append(key.in_(keys_of(connection, choice.workflow)))
    if choice.version is not None:
        conditions.append(RUNS.c.workflow_version == choice.version)
    if choice.recipe_run_id is not None:
        conditions.append(RUNS.c.recipe_run_id == choice.recipe_run_id)
    if choice.text is not None:
        conditions.append(_has_text(connection, choice.text, choice.text_since))
    return conditions


def _has_text(connection: Connection, text: str, since: datetime | None) -> ColumnElement[bool]:
    wanted = text.lower()
    named = [workflow_key(name) for name in workflows_in(connection) if wanted in name.lower()]
    # No index finds a part of an id. SQLite ignores the case of A to Z only.
    of_id = RUNS.c.run_id.icontains(text, autoescape=True)
    has_text = or_(of_id, RUNS.c.workflow_key.in_(named)) if named else of_id
    if since is None:
        return has_text
    found = select(RUNS.c.number).where(RUNS.c.last_sign_at >= since.timestamp(), has_text)
    characters = characters_of(text).lower()
    if len(characters) < SHORT:
        return RUNS.c.number.in_(found)
    has_end = RUNS.c.ending == characters[-SHORT:]
    ends_so = select(RUNS.c.number).where(has_end, RUNS.c.characters.endswith(characters, autoescape=True))
    return RUNS.c.number.in_(union(found, ends_so))


def without_index(connection: Connection, column: ColumnElement[_T]) -> ColumnElement[_T]:
    """Return the value of a column for which SQLite uses no index; PostgreSQL knows how many rows each index has."""
    if connection.dialect.name != "sqlite":
        return column
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def keys_of(connection: Connection, pattern: str) -> list[bytes]:
    """Return the digests of the names of workflows that match a pattern."""
    return [workflow_key(name) for name in workflows_in(connection) if matches(pattern, name)]


def workflows_in(connection: Connection) -> list[str]:
    """Return the names of all workflows with a run in the store."""
    return list(connection.scalars(select(TALLIES.c.workflow_name).distinct()))


def of_runs(connection: Connection, choice: Choice) -> list[Condition]:
    """Return the conditions on runs."""
    # SQLite would otherwise read all runs in these states, or of a workflow, to find few among them.
    is_of_few = has_few(choice)
    conditions: list[Condition] = [
        *of_identity(connection, choice, is_of_few=is_of_few),
        RUNS.c.state.is_not(None),
    ]
    if choice.since is not None:
        conditions.append(RUNS.c.last_sign_at >= choice.since.timestamp())
    if choice.until is not None:
        conditions.append(RUNS.c.last_sign_at < choice.until.timestamp())
    if choice.states:
        state = without_index(connection, RUNS.c.state) if is_of_few else RUNS.c.state
        conditions.append(state.in_(choice.states))
    for column, value in ((ATTEMPTS.c.cause, choice.cause), (ATTEMPTS.c.family, choice.family)):
        if value is not None:
            failed = select(ATTEMPTS.c.run).where(column == value, HAS_FAILED)
            if choice.failed_since is not None:
                failed = failed.where(ATTEMPTS.c.failed_at >= choice.failed_since.timestamp())
            conditions.append(RUNS.c.number.in_(failed))
    return conditions


def has_few(choice: Choice) -> bool:
    """Return True if a text, a cause or a family selects the runs, so that few match."""
    return any(each is not None for each in (choice.text, choice.cause, choice.family))


def of_failures(connection: Connection, choice: Choice) -> list[Condition]:
    """Return the conditions on failed attempts, all but those on their times."""
    conditions: list[Condition] = [*of_identity(connection, choice, is_of_few=True), HAS_FAILED]
    if choice.cause is not None:
        conditions.append(ATTEMPTS.c.cause == choice.cause)
    if choice.family is not None:
        conditions.append(ATTEMPTS.c.family == choice.family)
    return conditions


def of_failures_in_time(connection: Connection, choice: Choice) -> list[Condition]:
    """Return the conditions on failed attempts, those on their times as well."""
    conditions = of_failures(connection, choice)
    if choice.since is not None:
        conditions.append(ATTEMPTS.c.failed_at >= choice.since.timestamp())
    if choice.until is not None:
        conditions.append(ATTEMPTS.c.failed_at < choice.until.timestamp())
    return conditions
