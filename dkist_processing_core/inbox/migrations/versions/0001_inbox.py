"""
The first tables: rows, consumers and timers.

Not here: the tables as this release uses them (tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_UNFINISHED = "state IN ('waiting', 'parked', 'dead', 'archived')"
_INDEXES = {
    "due": (["consumer", "due_at", "seq"], "state = 'waiting' AND claim IS NULL"),
    "claim": (["consumer", "claim"], "claim IS NOT NULL"),
    "run": (["consumer", "run_id", "seq"], _UNFINISHED),
    "parked": (["consumer", "run_id"], "state = 'parked'"),
    "dead": (["consumer", "last_failed_at", "seq"], "state IN ('dead', 'archived')"),
    "family": (["consumer", "family", "last_failed_at"], "state IN ('dead', 'archived')"),
    "provisional": (["consumer", "run_id"], "provisional AND state IN ('waiting', 'parked')"),
    "without_effect": (["consumer", "key"], "state IN ('cancelled', 'unwanted')"),
    "end": (["consumer", "run_id", "task"], "is_end"),
    "done": (["consumer", "done_at"], "done_at IS NOT NULL"),
}


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "dkist_core_inbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("consumer", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("workflow", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("task", sa.Text),
        sa.Column("attempt", sa.Integer),
        sa.Column("reporter", sa.Text),
        sa.Column("provisional", sa.Boolean, nullable=False),
        sa.Column("is_end", sa.Boolean, nullable=False),
        sa.Column("is_final", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("content_type", sa.Text),
        sa.Column("headers", sa.Text),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("claim", sa.BigInteger),
        sa.Column("starts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("first_failed_at", sa.Double),
        sa.Column("last_failed_at", sa.Double),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("stack", sa.Text),
        sa.Column("family", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("history", sa.Text),
        sa.Column("done_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("dkist_core_inbox_key", "dkist_core_inbox", ["consumer", "key"], unique=True)
    for name, (columns, where) in _INDEXES.items():
        op.create_index(
            f"dkist_core_inbox_{name}",
            "dkist_core_inbox",
            columns,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
    if op.get_context().dialect.name == "postgresql":
        # Each row is changed twice within a short time, so the table is to be vacuumed more often than by default.
        op.execute("ALTER TABLE dkist_core_inbox SET (autovacuum_vacuum_scale_factor = 0.02)")
    op.create_table(
        "dkist_core_consumer",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("verified", sa.BigInteger),
    )
    op.create_table(
        "dkist_core_timer",
        sa.Column("consumer", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("next_at", sa.Double, nullable=False),
    )
