"""
Totals of ended attempts and runs, which are counted from all runs of the store.

Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_report = sa.table("dkist_core_report", *map(sa.column, ("number", "run", "is_folded")))


def upgrade() -> None:
    """Create the tables, and have all runs derived again."""
    op.create_table(
        "dkist_core_total",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("began_at", sa.Double, nullable=False),
    )
    op.create_table(
        "dkist_core_counted",
        sa.Column("identity", sa.LargeBinary, primary_key=True),
        sa.Column("marks", sa.LargeBinary, nullable=False),
        sa.Column("counted_at", sa.Double, nullable=False),
    )
    op.create_index("dkist_core_counted_counted_at", "dkist_core_counted", ["counted_at"])
    op.add_column("dkist_core_run", sa.Column("settles_at", sa.Double))
    for name, column, where in (
        ("running", "number", "state = 'running'"),
        ("settling", "settles_at", "settles_at IS NOT NULL"),
    ):
        op.create_index(
            f"dkist_core_run_{name}",
            "dkist_core_run",
            [column],
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
    first = sa.select(sa.func.min(_report.c.number)).group_by(_report.c.run)
    op.execute(sa.update(_report).where(_report.c.number.in_(first)).values(is_folded=False))
