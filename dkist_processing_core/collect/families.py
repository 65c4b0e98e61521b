"""
In which version of a workflow a family of failures occurred first, and which version ran the task without it before.

It is known of the runs that the store has, thus of those of 400 days. Not here: counting a family (questions).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, exists, func, select

from dkist_processing_core.collect.answers import FirstFailure
from dkist_processing_core.collect.choosing import Condition
from dkist_processing_core.collect.keys import task_key
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS, WAS_MEASURED


def first_failure(connection: Connection, family: str) -> FirstFailure | None:
    """Return the first failure of a family; None if the store has none. It reads a few rows, each by an index."""
    columns = (ATTEMPTS.c.failed_at, ATTEMPTS.c.task_name, RUNS.c.workflow_name, RUNS.c.workflow_version)
    first = select(*columns).join_from(ATTEMPTS, RUNS).where(HAS_FAILED, ATTEMPTS.c.family == family)
    row = connection.execute(first.order_by(ATTEMPTS.c.failed_at).limit(1)).first()
    if row is None:
        return None
    of_task = (ATTEMPTS.c.task_key == task_key(row.workflow_name, row.task_name), WAS_MEASURED)
    has_other_version = exists(
        select(RUNS.c.number).where(RUNS.c.number == ATTEMPTS.c.run, RUNS.c.workflow_version != row.workflow_version)
    )
    good = select(ATTEMPTS.c.run).where(*of_task, ATTEMPTS.c.ended_at < row.failed_at, has_other_version)
    run = good.order_by(ATTEMPTS.c.ended_at.desc()).limit(1).scalar_subquery()
    last_good = connection.scalar(select(RUNS.c.workflow_version).where(RUNS.c.number == run))
    return FirstFailure(row.failed_at, row.workflow_name, row.workflow_version, row.task_name, last_good)


def recipe_runs(connection: Connection, conditions: Sequence[Condition]) -> dict[str, int]:
    """Return the number of recipe runs in which each family has failed, of the failures that fulfil conditions."""
    counts = select(ATTEMPTS.c.family, func.count(RUNS.c.recipe_run_id.distinct())).join_from(ATTEMPTS, RUNS)
    rows = connection.execute(counts.where(*conditions).group_by(ATTEMPTS.c.family))
    return {row[0]: row[1] for row in rows}
