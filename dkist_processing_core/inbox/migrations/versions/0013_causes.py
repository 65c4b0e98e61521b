"""
An index of the failures by their causes and times, for the latest failures by a cause.

Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create the index anew with times and families."""
    has_failed = sa.text("family IS NOT NULL")
    op.drop_index("dkist_core_attempt_cause", "dkist_core_attempt")
    op.create_index(
        "dkist_core_attempt_cause",
        "dkist_core_attempt",
        ["cause", "failed_at", "family", "run"],
        sqlite_where=has_failed,
        postgresql_where=has_failed,
    )
