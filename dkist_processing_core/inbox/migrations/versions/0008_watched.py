"""
What a watcher needs: signs of life, announced limits, alarms, missed starts, and when the store was complete.

Not here: the tables as this release uses them (collect.tables).
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_WAS_MEASURED = "measured_seconds IS NOT NULL AND state = 'finished'"
_KINDS: dict[str, Any] = {
    "alarm": sa.LargeBinary,
    "alarms": sa.LargeBinary,
    "task_key": sa.LargeBinary,
    "is_alarmed": sa.Boolean,
    "has_alarm": sa.Boolean,
}
_report = sa.table("dkist_core_report", *map(sa.column, ("number", "run", "is_folded")))


def upgrade() -> None:
    """Add the columns and the tables, and have all runs derived again."""
    for table, columns in (
        ("run", ("sign_received_at", "alarm", "has_alarm")),
        ("attempt", ("sign_at", "sign_received_at", "clock_difference", "sample_interval", "overdue_after")),
        ("attempt", ("measured_seconds", "task_key", "alarms", "is_alarmed")),
    ):
        for name in columns:
            op.add_column(f"dkist_core_{table}", sa.Column(name, _KINDS.get(name, sa.Double)))
    op.create_table(
        "dkist_core_missed_start",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("expected_at", sa.Double, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
    )
    op.create_table(
        "dkist_core_listening",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("bus", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    for table, column in (("missed_start", "expected_at"), ("missed_start", "received_at"), ("listening", "until")):
        op.create_index(f"dkist_core_{table}_{column}", f"dkist_core_{table}", [column])
    for name, table, partial, where in (
        ("attempt_alarmed", "attempt", ["run"], "is_alarmed"),
        ("attempt_measured", "attempt", ["task_key", "ended_at"], _WAS_MEASURED),
        ("run_alarmed", "run", ["number"], "has_alarm"),
    ):
        condition = sa.text(where)
        op.create_index(
            f"dkist_core_{name}", f"dkist_core_{table}", partial, sqlite_where=condition, postgresql_where=condition
        )
    first = sa.select(sa.func.min(_report.c.number)).group_by(_report.c.run)
    op.execute(sa.update(_report).where(_report.c.number.in_(first)).values(is_folded=False))
