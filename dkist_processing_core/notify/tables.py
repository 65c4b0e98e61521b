"""
The tables of notices: occurrences that are not counted yet, the groups of each route, and what is muted.

Times are seconds since 1970, UTC. A notice itself is a row of the inbox. Not here: making the tables
(inbox.migrations), and the form of a state (grouping).
"""

from sqlalchemy import Column, Double, LargeBinary, MetaData, Table, Text

from dkist_processing_core.inbox.tables import ROW_NUMBER

METADATA = MetaData()

OCCURRENCES = Table(
    "dkist_core_occurrence",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True, autoincrement=True),
    # As JSON.
    Column("facts", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

ROUTES = Table(
    "dkist_core_route",
    METADATA,
    Column("name", Text, primary_key=True),
    # As JSON.
    Column("state", LargeBinary, nullable=False),
)

MUTES = Table(
    "dkist_core_mute",
    METADATA,
    # `family` or `workflow`.
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("until", Double, nullable=False),
)
