"""
How often families of failures occurred in equal parts of a time.

Not here: counting a family as a whole (questions), and drawing (dashboard).
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Integer, cast, func, select

from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.choosing import of_failures, of_identity
from dkist_processing_core.collect.tables import ATTEMPTS, RUNS


def trends(
    connection: Connection, choice: Choice, families: Iterable[str], since: datetime, until: datetime, parts: int
) -> dict[str, tuple[int, ...]]:
    """Return the number of failures of each family in each part of a time; see `Questions.family_trends`."""
    found = {family: [0] * parts for family in families}
    seconds = max(1.0, (until - since).total_seconds() / parts)
    # PostgreSQL rounds when it casts, and SQLite has no other function that it always has.
    part = (ATTEMPTS.c.failed_at - since.timestamp()) / seconds
    number = cast(func.trunc(part) if connection.dialect.name == "postgresql" else part, Integer).label("number")
    chosen = of_failures(connection, choice)
    # The table of runs only if something is asked of it, as for the families themselves.
    source = ATTEMPTS.join(RUNS) if of_identity(connection, choice) else ATTEMPTS
    query = select(ATTEMPTS.c.family, number, func.count().label("failures")).select_from(source)
    in_time = (ATTEMPTS.c.failed_at >= since.timestamp(), ATTEMPTS.c.failed_at <= until.timestamp())
    query = query.where(*chosen, *in_time).group_by(ATTEMPTS.c.family, number)
    for some in in_parts(list(found)):
        for family, place, count in connection.execute(query.where(ATTEMPTS.c.family.in_(some))):
            found[family][min(place, parts - 1)] += count
    return {family: tuple(counts) for family, counts in found.items()}
