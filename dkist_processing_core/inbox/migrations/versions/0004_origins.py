"""
Whether the start of a run was reported, and the bus to whose archive a consumer's offset belongs.

Not here: the tables as this release uses them (tables, collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, and let the store derive its runs again."""
    op.add_column("dkist_core_consumer", sa.Column("bus", sa.Text))
    op.add_column("dkist_core_run", sa.Column("is_start_known", sa.Boolean))
    op.execute(
        "UPDATE dkist_core_report SET is_folded = FALSE"
        " WHERE number IN (SELECT max(number) FROM dkist_core_report GROUP BY run)"
    )
