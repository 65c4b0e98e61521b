"""
The tables of the store: runs, their tasks and attempts, and the reports from which these are derived.

The reports are the content of the store; every other row of a run is derived from them, and is written anew when a
report arrives. Not here: making and migrating the tables (inbox.migrations), and the derivation of the rows (rows).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dkist_processing_core.inbox.tables import ROW_NUMBER, partial_index

METADATA = MetaData(naming_convention={"ix": "%(table_name)s_%(column_0_name)s"})

BUSES = Table(
    "dkist_core_store_bus",
    METADATA,
    Column("name", Text, primary_key=True),
    # When all reports on the bus were last known to be in the store.
    Column("completed_at", Double, nullable=False),
)

RUNS = Table(
    "dkist_core_run",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True),
    Column("workflow_name", Text, nullable=False),
    Column("workflow_version", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    # The letters and digits of the run's id, by which people name it, and the last of them.
    Column("characters", Text, nullable=False),
    Column("ending", Text, nullable=False, index=True),
    Column("recipe_run_id", BigInteger),
    # It is missing until the first derivation.
    Column("state", Text),
    Column("verdict", Text),
    Column("reason", Text),
    # When it began, or else the time of its first report.
    Column("began_at", Double),
    Column("is_start_known", Boolean),
    Column("ended_at", Double),
    Column("last_sign_at", Double, index=True),
    Column("received_at", Double, nullable=False, index=True),
    # The digest of workflow, version and run_id, which may be too long for an index.
    Column("identity", LargeBinary, nullable=False),
    # When an end is counted that waits for a better report; it is derived again then.
    Column("settles_at", Double),
    UniqueConstraint("identity", name="dkist_core_run_identity"),
)

TASKS = Table(
    "dkist_core_task",
    METADATA,
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("engine_state", Text),
)

ATTEMPTS = Table(
    "dkist_core_attempt",
    METADATA,
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), primary_key=True),
    # Among all attempts of the run, in the order of its tasks.
    Column("place", Integer, primary_key=True),
    Column("task_name", Text, nullable=False),
    Column("number", BigInteger),
    Column("max_attempts", BigInteger),
    Column("state", Text, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("is_last", Boolean, nullable=False),
    Column("dispatched_at", Double),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("last_sign_at", Double),
    Column("duration_seconds", Double),
    Column("host", Text),
    Column("done", Double),
    Column("total", Double),
    Column("unit", Text),
    Column("note", Text),
    Column("cause", Text),
    Column("family", Text),
    Column("summary", Text),
    Column("log_url", Text),
    Column("failed_at", Double),
    Column("queue", Text),
    Column("died", Boolean),
    Column("peak_memory", BigInteger),
    Column("memory_limit", BigInteger),
    # Seconds, and processors.
    Column("cpu_used", Double),
    Column("cpu_limit", Double),
    # From and to storage.
    Column("bytes_read", BigInteger),
    Column("bytes_written", BigInteger),
)

REPORTS = Table(
    "dkist_core_report",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True),
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), nullable=False, index=True),
    # Of the body, which has the event's id and its reporter.
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
    # Whether the rows of its run are derived from it.
    Column("is_folded", Boolean, nullable=False),
)

# The two tables below are no part of the store's content: they remain when runs are deleted and derived again.
TOTALS = Table(
    "dkist_core_total",
    METADATA,
    # The digest of name and attributes, which may be too long for an index.
    Column("key", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    # When it was zero.
    Column("began_at", Double, nullable=False),
)

COUNTED = Table(
    "dkist_core_counted",
    METADATA,
    # That of a run.
    Column("identity", LargeBinary, primary_key=True),
    Column("marks", LargeBinary, nullable=False),
    Column("counted_at", Double, nullable=False, index=True),
)

IS_OPEN, IS_NEW, HAS_FAILED = text("is_open"), text("NOT is_folded"), text("family IS NOT NULL")
IS_RUNNING, IS_SETTLING = text("state = 'running'"), text("settles_at IS NOT NULL")
"""The conditions of partial indexes, for queries that use them."""
partial_index("dkist_core_attempt_family", ATTEMPTS.c.family, ATTEMPTS.c.failed_at, where=HAS_FAILED)
partial_index("dkist_core_attempt_open", ATTEMPTS.c.run, where=IS_OPEN)
partial_index("dkist_core_report_new", REPORTS.c.run, where=IS_NEW)
partial_index("dkist_core_run_running", RUNS.c.number, where=IS_RUNNING)
partial_index("dkist_core_run_settling", RUNS.c.settles_at, where=IS_SETTLING)
