"""
Indexes for lists of runs by their beginning and duration, for the runs of a recipe run, and the families of a time.

Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the indexes."""
    for name, columns in (
        ("state_begin", ["state", "begin_order"]),
        ("state_duration", ["state", "duration_order"]),
        ("workflow_begin", ["workflow_key", "begin_order"]),
        ("workflow_state", ["workflow_key", "state", "begin_order"]),
    ):
        op.create_index(f"dkist_core_run_{name}", "dkist_core_run", columns)
    has_failed = sa.text("family IS NOT NULL")
    op.drop_index("dkist_core_attempt_failed", "dkist_core_attempt")
    op.create_index(
        "dkist_core_attempt_failed",
        "dkist_core_attempt",
        ["failed_at", "family"],
        sqlite_where=has_failed,
        postgresql_where=has_failed,
    )
    is_known = sa.text("recipe_run_id IS NOT NULL")
    op.create_index(
        "dkist_core_run_recipe",
        "dkist_core_run",
        ["recipe_run_id"],
        sqlite_where=is_known,
        postgresql_where=is_known,
    )
