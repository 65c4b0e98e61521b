"""
Whether a run of a workflow began within a time, as the store knows it.

Not here: which runs were expected then (watch), and other questions to the store (questions).
"""

from datetime import datetime

from sqlalchemy import Connection, and_, exists, or_, select

from dkist_processing_core.collect.tables import RUNS

# The clock of a host may be this far ahead.
_CLOCKS_DIFFER = 300.0


def has_begun(connection: Connection, workflow_name: str, version: str | None, first: datetime, last: datetime) -> bool:
    """
    Return whether a run of a workflow began between two times, by the clock of its host or by that of the store.

    Args:
        connection: The connection to the store.
        workflow_name: The name of the workflow.
        version: Its version; None for any.
        first: The earlier time.
        last: The later time.
    """
    earliest, latest = first.timestamp(), last.timestamp()
    of_version = [] if version is None else [RUNS.c.workflow_version == version]
    received_at = RUNS.c.first_received_at
    is_in_time = or_(RUNS.c.began_at <= latest, and_(RUNS.c.began_at <= latest + _CLOCKS_DIFFER, received_at <= latest))
    # A run has no report after its last one: the first of these conditions uses an index.
    since = [RUNS.c.last_sign_at >= earliest, RUNS.c.began_at >= earliest]
    found = select(RUNS.c.number).where(RUNS.c.workflow_name == workflow_name, *of_version, *since, is_in_time)
    return bool(connection.scalar(select(exists(found))))
