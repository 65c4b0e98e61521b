"""
What has changed in the store since a revision.

Not here: the revision (collect.revisions).
"""

from sqlalchemy import Connection, select

from dkist_processing_core.collect.questions.overview import Changes
from dkist_processing_core.collect.tables import IDENTITY, REVISION, RUNS
from dkist_processing_core.identity import Run


def changed_since(connection: Connection, before: int, limit: int) -> Changes:
    """Return at most `limit` of the runs that have changed since a revision, those that changed last."""
    row = connection.execute(select(REVISION.c.revision, REVISION.c.deleted_at)).first()
    if row is None or row.revision == before:
        return Changes(before if row else 0)
    changed = select(*IDENTITY).where(RUNS.c.revision > before).order_by(RUNS.c.revision.desc())
    rows = connection.execute(changed.limit(limit + 1)).all()
    is_cut = len(rows) > limit or row.deleted_at > before or row.revision < before
    return Changes(row.revision, [Run(*names) for names in reversed(rows[:limit])], is_cut)
