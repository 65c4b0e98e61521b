"""
How often families of failures occurred in equal parts of a time.

Not here: counting a family as a whole (questions), and drawing (dashboard).
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Integer, cast, func, select

from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED


def trends(
    connection: Connection, families: Iterable[str], since: datetime, until: datetime, parts: int
) -> dict[str, tuple[int, ...]]:
    """Return the number of failures of each family in each part of a time; see `Questions.family_trends`."""
    found = {family: [0] * parts for family in families}
    seconds = max(1.0, (until - since).total_seconds() / parts)
    # PostgreSQL rounds when it casts, and SQLite has no other function that it always has.
    part = (ATTEMPTS.c.failed_at - since.timestamp()) / seconds
    number = cast(func.trunc(part) if connection.dialect.name == "postgresql" else part, Integer).label("number")
    # Each family by itself, since that reads one part of an index.
    for family, counts in found.items():
        query = select(number, func.count().label("failures")).where(
            HAS_FAILED,
            ATTEMPTS.c.family == family,
            ATTEMPTS.c.failed_at >= since.timestamp(),
            ATTEMPTS.c.failed_at <= until.timestamp(),
        )
        for place, count in connection.execute(query.group_by(number)):
            counts[min(place, parts - 1)] += count
    return {family: tuple(counts) for family, counts in found.items()}
