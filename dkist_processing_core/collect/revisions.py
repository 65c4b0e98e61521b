"""
The revision of the store: a number that grows with each change.

Several processes may show one store, and ask several times a second whether it has changed. Not here: which runs have
changed since a revision (collect.questions.changes).
"""

from sqlalchemy import Connection, select, update

from dkist_processing_core.collect.additions import add_new
from dkist_processing_core.collect.tables import REVISION

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
        add_new(connection, REVISION, [{"number": _NUMBER, "revision": 0, "deleted_at": 0}])
        connection.execute(step)
    return revision(connection)


def revision(connection: Connection) -> int:
    """Return the revision of the store, 0 before the first change. It reads one row."""
    return connection.scalar(select(REVISION.c.revision)) or 0
