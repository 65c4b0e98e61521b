"""
The reports on each run, packed together: the tables for them, and for the reports that are not packed yet.

The reports of an earlier release are all taken for new ones, and are packed by the following folds, some runs at a
time. Not here: the tables as this release uses them (collect.tables).
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_REPORT, _FORMER = "dkist_core_report", "dkist_core_former_report"
_COLUMNS = ("number", "run", "digest", "body", "received_at")


def upgrade() -> None:
    """Create the tables, and move the reports."""
    op.create_table(
        "dkist_core_pack",
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "dkist_core_detail",
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.add_column("dkist_core_run", sa.Column("first_received_at", sa.Double))
    op.execute(
        "UPDATE dkist_core_run SET first_received_at = "
        "(SELECT min(received_at) FROM dkist_core_report WHERE run = dkist_core_run.number)"
    )
    op.create_index("dkist_core_run_state", "dkist_core_run", ["state", "last_sign_at"])
    op.drop_index("dkist_core_report_new", _REPORT)
    if op.get_bind().dialect.name == "sqlite":
        _make_anew()
    else:
        op.drop_column(_REPORT, "is_folded")


def _make_anew() -> None:
    """Make the table of reports anew: SQLite gives each number once only to tables that were made so."""
    op.drop_index("dkist_core_report_run", _REPORT)
    op.rename_table(_REPORT, _FORMER)
    op.create_table(
        _REPORT,
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("run", _NUMBER, sa.ForeignKey("dkist_core_run.number"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    names = ", ".join(_COLUMNS)
    op.execute(f"INSERT INTO {_REPORT} ({names}) SELECT {names} FROM {_FORMER}")  # noqa: S608 - constants
    op.drop_table(_FORMER)
    op.create_index("dkist_core_report_run", _REPORT, ["run"])
