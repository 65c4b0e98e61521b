"""
Values of any size in each index, and rows that are due at once whatever a clock shows.

Not here: the tables as this release uses them (tables, collect.tables).
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LONGEST, _KEPT = 250, 185
_inbox = sa.table(
    "dkist_core_inbox", *map(sa.column, ("seq", "run_id", "task", "tries", "provisional", "state", "due_at"))
)
_run = sa.table(
    "dkist_core_run", *map(sa.column, ("number", "workflow_name", "workflow_version", "run_id", "identity"))
)


def upgrade() -> None:
    """Change the columns and the rows."""
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("dkist_core_inbox", "attempt", type_=_NUMBER)
    _shorten_long_texts()
    op.execute(
        "UPDATE dkist_core_inbox SET due_at = 0 WHERE state IN ('waiting', 'parked') AND tries = 0 AND NOT provisional"
    )
    op.add_column("dkist_core_run", sa.Column("identity", sa.LargeBinary))
    _identify_runs()
    with op.batch_alter_table("dkist_core_run") as run:
        run.alter_column("identity", nullable=False)
        run.drop_constraint("dkist_core_run_identity")
        run.create_unique_constraint("dkist_core_run_identity", ["identity"])


def _shorten_long_texts() -> None:
    for name in ("run_id", "task"):
        column = _inbox.c[name]
        long = sa.select(column).where(sa.func.length(column) > _LONGEST).distinct()
        for text in op.get_bind().scalars(long).all():
            short = f"{text[:_KEPT]} {hashlib.sha256(text.encode()).hexdigest()}"
            op.execute(sa.update(_inbox).where(column == text).values({name: short}))


def _identify_runs() -> None:
    columns = (_run.c.number, _run.c.workflow_name, _run.c.workflow_version, _run.c.run_id)
    values = [{"of": number, "new": _digest(of_run)} for number, *of_run in op.get_bind().execute(sa.select(*columns))]
    if values:
        identify = sa.update(_run).where(_run.c.number == sa.bindparam("of")).values(identity=sa.bindparam("new"))
        op.get_bind().execute(identify, values)


def _digest(of_run: Sequence[Any]) -> bytes:
    return hashlib.sha256(json.dumps(of_run).encode()).digest()[:16]
