"""
What is known of a consumer: the bindings of its queue, and until when the keys of its events were deleted.

Not here: the tables as this release uses them (tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("dkist_core_consumer", sa.Column("bound", sa.Text))
    op.add_column("dkist_core_consumer", sa.Column("pruned_until", sa.Double))
