"""
What pages need: sorted lists, numbers of runs, durations by task, and what has changed.

Not here: the tables as this release uses them (collect.tables).
"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_run = sa.table(
    "dkist_core_run", *map(sa.column, ("workflow_name", "workflow_version", "state", "workflow_key", "number"))
)


def upgrade() -> None:
    """Add the columns and the tables, and fill the columns by which lists are sorted."""
    for name, kind in (
        ("workflow_key", sa.LargeBinary),
        ("begin_order", sa.Double),
        ("duration_order", sa.Double),
        ("revision", sa.BigInteger),
    ):
        op.add_column("dkist_core_run", sa.Column(name, kind))
    for name in ("queued_seconds", "preparation_seconds"):
        op.add_column("dkist_core_attempt", sa.Column(name, sa.Double))
    tally = op.create_table(
        "dkist_core_tally",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("workflow_name", sa.Text, nullable=False),
        sa.Column("workflow_version", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("runs", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "dkist_core_revision",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger, nullable=False),
    )
    _count_runs(op.get_bind(), tally)
    # As the rows of runs are derived: by each list of all runs, until each of them is derived again.
    op.execute(
        "UPDATE dkist_core_run SET begin_order = coalesce(began_at, last_sign_at), duration_order = CASE "
        "WHEN began_at IS NULL OR ended_at IS NULL OR is_start_known IS NOT TRUE THEN -1.0 "
        "WHEN ended_at < began_at THEN 0.0 ELSE ended_at - began_at END WHERE state IS NOT NULL"
    )
    for name, columns in (
        ("begin_order", ["begin_order"]),
        ("duration_order", ["duration_order"]),
        ("revision", ["revision"]),
        ("workflow", ["workflow_key", "last_sign_at"]),
        ("ended", ["ended_at", "state", "workflow_key"]),
    ):
        op.create_index(f"dkist_core_run_{name}", "dkist_core_run", columns)
    has_failed = sa.text("family IS NOT NULL")
    for name, columns in (("cause", ["cause", "run"]), ("failed", ["failed_at"])):
        op.create_index(
            f"dkist_core_attempt_{name}",
            "dkist_core_attempt",
            columns,
            sqlite_where=has_failed,
            postgresql_where=has_failed,
        )


def _count_runs(connection: sa.Connection, tally: sa.Table) -> None:
    names = (_run.c.workflow_name, _run.c.workflow_version, _run.c.state)
    rows = connection.execute(sa.select(*names, sa.func.count()).group_by(*names)).all()
    for workflow in {row.workflow_name for row in rows}:
        of_workflow = sa.update(_run).where(_run.c.workflow_name == workflow)
        connection.execute(of_workflow.values(workflow_key=_digest(workflow)))
    values = [
        dict(
            zip(tally.c.keys(), (_digest(json.dumps((name, version, state))), name, version, state, count), strict=True)
        )
        for name, version, state, count in rows
        if state is not None
    ]
    if values:
        connection.execute(tally.insert(), values)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
