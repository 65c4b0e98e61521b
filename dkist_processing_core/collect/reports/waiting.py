"""
The new reports, from which rows are still to be derived: on which runs, and which of them never will be.

Not here: the reports themselves (stored), and deriving the rows (folding).
"""

from collections.abc import Collection
from itertools import takewhile

from sqlalchemy import Connection, func, select

from dkist_processing_core.collect.tables import REPORTS

_LOOKED_AT = 1000


def first_runs(
    connection: Connection, limit: int, left_out: Collection[int], now: float, *, shortest_wait: float = 0.0
) -> list[int]:
    """
    Return runs with new reports, in the order in which these have arrived.

    Args:
        connection: The connection to the store.
        limit: The largest number of runs.
        left_out: Runs that are not returned.
        now: The present time, in seconds since 1970. A report of a later time, since a clock was set back, has waited.
        shortest_wait: Only runs with a new report that was received that many seconds ago.
    """
    found: dict[int, None] = {}
    last = 0
    while len(found) < limit:
        query = select(REPORTS.c.number, REPORTS.c.run, REPORTS.c.received_at).where(REPORTS.c.number > last)
        received = connection.execute(query.order_by(REPORTS.c.number).limit(_LOOKED_AT)).all()
        rows = list(takewhile(lambda row: not now - shortest_wait < row.received_at <= now, received))
        found |= dict.fromkeys(run for _, run, _ in rows if run not in left_out)
        if len(rows) < _LOOKED_AT:
            break
        last = rows[-1].number
    return list(found)[:limit]


def first_underived(connection: Connection, left_out: Collection[int]) -> int | None:
    """Return the number of the first report from which rows are still to be derived; None if there is none."""
    last: int | None = 0
    while last is not None:
        query = select(REPORTS.c.number, REPORTS.c.run).where(REPORTS.c.number > last)
        last = None
        for number, run in connection.execute(query.order_by(REPORTS.c.number).limit(_LOOKED_AT)):
            if run not in left_out:
                return int(number)
            last = number
    return None


def number_of_stale_runs(connection: Connection, complete_until: float) -> int:
    """
    Return of how many runs the rows lack reports that cannot be read together with the earlier ones.

    Args:
        connection: The connection to the store.
        complete_until: When the store was last complete: the rows of all other runs have what had arrived until then.
    """
    query = select(func.count(REPORTS.c.run.distinct())).where(REPORTS.c.received_at <= complete_until)
    return connection.scalar(query) or 0
