"""
The tables of the store: runs, tasks, attempts and reports.

Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "dkist_core_store_bus",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("completed_at", sa.Double, nullable=False),
    )
    op.create_table(
        "dkist_core_run",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("workflow_name", sa.Text, nullable=False),
        sa.Column("workflow_version", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("characters", sa.Text, nullable=False),
        sa.Column("ending", sa.Text, nullable=False),
        sa.Column("recipe_run_id", sa.BigInteger),
        sa.Column("state", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("began_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("last_sign_at", sa.Double),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.UniqueConstraint("workflow_name", "workflow_version", "run_id", name="dkist_core_run_identity"),
    )
    for column in ("last_sign_at", "received_at", "ending"):
        op.create_index(f"dkist_core_run_{column}", "dkist_core_run", [column])
    op.create_table(
        "dkist_core_task",
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("engine_state", sa.Text),
    )
    op.create_table(
        "dkist_core_attempt",
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("task_name", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger),
        sa.Column("max_attempts", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("is_last", sa.Boolean, nullable=False),
        sa.Column("dispatched_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("last_sign_at", sa.Double),
        sa.Column("duration_seconds", sa.Double),
        sa.Column("host", sa.Text),
        sa.Column("done", sa.Double),
        sa.Column("total", sa.Double),
        sa.Column("unit", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("cause", sa.Text),
        sa.Column("family", sa.Text),
        sa.Column("summary", sa.Text),
        sa.Column("log_url", sa.Text),
        sa.Column("failed_at", sa.Double),
    )
    op.create_table(
        "dkist_core_report",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("is_folded", sa.Boolean, nullable=False),
    )
    op.create_index("dkist_core_report_run", "dkist_core_report", ["run"])
    for name, columns, where in (
        ("attempt_family", ["family", "failed_at"], "family IS NOT NULL"),
        ("attempt_open", ["run"], "is_open"),
        ("report_new", ["run"], "NOT is_folded"),
    ):
        op.create_index(
            f"dkist_core_{name}",
            f"dkist_core_{name.partition('_')[0]}",
            columns,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
