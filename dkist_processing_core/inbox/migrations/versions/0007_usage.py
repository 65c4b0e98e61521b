"""
What each attempt of the store has used, and in which queue it ran.

Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_report = sa.table("dkist_core_report", *map(sa.column, ("number", "run", "is_folded")))


def upgrade() -> None:
    """Add the columns, and have all runs derived again."""
    for name, kind in (
        ("queue", sa.Text),
        ("died", sa.Boolean),
        ("peak_memory", sa.BigInteger),
        ("memory_limit", sa.BigInteger),
        ("cpu_used", sa.Double),
        ("cpu_limit", sa.Double),
        ("bytes_read", sa.BigInteger),
        ("bytes_written", sa.BigInteger),
    ):
        op.add_column("dkist_core_attempt", sa.Column(name, kind))
    first = sa.select(sa.func.min(_report.c.number)).group_by(_report.c.run)
    op.execute(sa.update(_report).where(_report.c.number.in_(first)).values(is_folded=False))
