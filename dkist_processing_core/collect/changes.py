"""
The revision of the store: a number that grows with each change, and the runs that have changed since a number.

Several processes may show one store, and ask for changes several times a second. Not here: deriving the rows (folding).
"""

from importlib import import_module

from sqlalchemy import Connection, select, update

from dkist_processing_core.collect.overview import Changes
from dkist_processing_core.collect.tables import IDENTITY, REVISION, RUNS
from dkist_processing_core.identity import Run

_NUMBER = 1


def next_revisions(connection: Connection, count: int) -> int:
    """
    Return the first of the next revisions, for as many runs whose rows are written in the caller's transaction.

    Other transactions that do the same wait for its end, so that no reader sees a revision before an earlier one.
    """
    return _advanced(connection, count) - count + 1


def note_deleted(connection: Connection) -> None:
    """Note that runs were deleted in the caller's transaction."""
    connection.execute(update(REVISION).values(deleted_at=_advanced(connection, 1)))


def _advanced(connection: Connection, count: int) -> int:
    step = update(REVISION).values(revision=REVISION.c.revision + count)
    if not connection.execute(step).rowcount:
        # Another process may add the row at the same time: this waits for its end.
        insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(REVISION)
        connection.execute(insert.values(number=_NUMBER, revision=0, deleted_at=0).on_conflict_do_nothing())
        connection.execute(step)
    return revision(connection)


def revision(connection: Connection) -> int:
    """Return the revision of the store, 0 before the first change. It reads one row."""
    return connection.scalar(select(REVISION.c.revision)) or 0


def changed_since(connection: Connection, before: int, limit: int) -> Changes:
    """Return at most `limit` of the runs that have changed since a revision, those that changed last."""
    row = connection.execute(select(REVISION.c.revision, REVISION.c.deleted_at)).first()
    if row is None or row.revision == before:
        return Changes(before if row else 0)
    changed = select(*IDENTITY).where(RUNS.c.revision > before).order_by(RUNS.c.revision.desc())
    rows = connection.execute(changed.limit(limit + 1)).all()
    is_cut = len(rows) > limit or row.deleted_at > before or row.revision < before
    return Changes(row.revision, [Run(*names) for names in reversed(rows[:limit])], is_cut)
