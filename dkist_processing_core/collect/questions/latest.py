"""
The time since which a page looks at runs and failures.

It limits how many are read, however large the store is. Not here: the conditions themselves (choosing).
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select

from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.choosing import Condition
from dkist_processing_core.collect.questions.of_rows import moment_of
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS


def latest_failures(connection: Connection, choice: Choice, most: int) -> Choice:
    """Return the choice of failures with a later beginning; see `Questions.latest_failures`."""
    of_failures: list[Condition] = [HAS_FAILED]
    # Each has an index with the times.
    if choice.family is not None:
        of_failures.append(ATTEMPTS.c.family == choice.family)
    elif choice.cause is not None:
        of_failures.append(ATTEMPTS.c.cause == choice.cause)
    since = _begin(connection, ATTEMPTS.c.failed_at, of_failures, choice, most)
    return choice if since is None else replace(choice, since=since)


def latest_runs(connection: Connection, choice: Choice, most_runs: int, most_failures: int) -> Choice:
    """Return the choice of runs with a limit on what is looked at; see `Questions.latest_runs`."""
    if choice.text is not None:
        choice = replace(choice, text_since=_begin(connection, RUNS.c.last_sign_at, [], choice, most_runs))
    if choice.cause is not None or choice.family is not None:
        # A run may have failed long before its last report.
        failures = latest_failures(connection, replace(choice, since=None), most_failures)
        choice = replace(choice, failed_since=failures.since)
    return choice


def _begin(
    connection: Connection, time: ColumnElement[float | None], conditions: list[Condition], choice: Choice, most: int
) -> datetime | None:
    """Return the time since which there are about `most` rows of a choice; None if there are not more of them."""
    query = select(time).where(*conditions, time.is_not(None))
    if choice.since is not None:
        query = query.where(time >= choice.since.timestamp())
    if choice.until is not None:
        query = query.where(time < choice.until.timestamp())
    return moment_of(connection.scalar(query.order_by(time.desc()).offset(most).limit(1)))
