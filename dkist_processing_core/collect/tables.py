"""
The tables of the store: runs, their tasks and attempts, and the reports from which these are derived.

The reports are the content of the store; every other row of a run is derived from them, and is written anew when a
report arrives. Not here: making and migrating the tables (inbox.migrations), and the derivation of the rows (folding).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
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
    # When the first report on it was received.
    Column("first_received_at", Double),
    # The digest of workflow, version and run_id, which may be too long for an index.
    Column("identity", LargeBinary, nullable=False),
    # The digest of the workflow's name.
    Column("workflow_key", LargeBinary),
    # By what lists are sorted, without a missing value: when it began, or else its last sign; its duration, or else -1.
    Column("begin_order", Double, index=True),
    Column("duration_order", Double, index=True),
    # That of the store when the rows of the run were last derived.
    Column("revision", BigInteger, index=True),
    # When an end is counted that waits for a better report; it is derived again then.
    Column("settles_at", Double),
    # When the last report was received that is not an alarm of a watcher.
    Column("sign_received_at", Double),
    # The latest alarm, or its withdrawal, and whether it stands.
    Column("alarm", LargeBinary),
    Column("has_alarm", Boolean),
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
    # Whether neither it nor its run has ended.
    Column("is_open", Boolean, nullable=False),
    Column("is_last", Boolean, nullable=False),
    Column("dispatched_at", Double),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("last_sign_at", Double),
    Column("duration_seconds", Double),
    # The time that it waited for a worker, and that its environment took, in seconds.
    Column("queued_seconds", Double),
    Column("preparation_seconds", Double),
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
    # The last report of its launcher or its task: its time by their clock, and when the last one was received.
    Column("sign_at", Double),
    Column("sign_received_at", Double),
    # The smallest difference of reception and time of these reports, in seconds.
    Column("clock_difference", Double),
    # What it has announced: the time between two samples, and the author's limit of its duration, in seconds.
    Column("sample_interval", Double),
    Column("overdue_after", Double),
    # Its duration as its launcher or its task reported it at the end.
    Column("measured_seconds", Double),
    # The digest of workflow and task, without the index of a mapped task's instance.
    Column("task_key", LargeBinary),
    # The latest alarm of each kind, or its withdrawal, one in a line, and whether one stands.
    Column("alarms", LargeBinary),
    Column("is_alarmed", Boolean),
)

# The reports from which the rows of their runs are not derived yet.
REPORTS = Table(
    "dkist_core_report",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), nullable=False, index=True),
    # Of the body, which has the event's id and its reporter.
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
    # No number is used again: the report with the smaller number arrived first.
    sqlite_autoincrement=True,
)

# The other reports on each run, compressed together.
PACKS = Table(
    "dkist_core_pack",
    METADATA,
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

# Those of them that have a stack, a log or a profile, compressed as a whole: in the pack they are without these.
DETAILS = Table(
    "dkist_core_detail",
    METADATA,
    Column("run", ROW_NUMBER, ForeignKey(RUNS.c.number), primary_key=True),
    # The digest of the event's id and its reporter.
    Column("key", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# The starts that were expected and missed, as each watcher has reported them.
MISSED_STARTS = Table(
    "dkist_core_missed_start",
    METADATA,
    # Of the body.
    Column("digest", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("expected_at", Double, nullable=False, index=True),
    Column("received_at", Double, nullable=False, index=True),
)

# The spans of time in which the store is known to have been complete, with all reports that were on the bus.
LISTENING = Table(
    "dkist_core_listening",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True),
    Column("bus", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("until", Double, nullable=False, index=True),
)

# The number of runs of each version of a workflow in each state.
TALLIES = Table(
    "dkist_core_tally",
    METADATA,
    # The digest of the three, which may be too long for an index.
    Column("key", LargeBinary, primary_key=True),
    Column("workflow_name", Text, nullable=False),
    Column("workflow_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("runs", BigInteger, nullable=False),
)

# One row: the revision of the store, which grows with each derivation and each deletion of runs, and the last deletion.
REVISION = Table(
    "dkist_core_revision",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
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

IDENTITY = RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id
"""The columns that name a run, in the order of the fields of `Run`."""
IS_OPEN, HAS_FAILED = text("is_open"), text("family IS NOT NULL")
IS_RUNNING, IS_SETTLING = text("state = 'running'"), text("settles_at IS NOT NULL")
IS_ALARMED, HAS_ALARM = text("is_alarmed"), text("has_alarm")
WAS_MEASURED = text("measured_seconds IS NOT NULL AND state = 'finished'")
"""The conditions of partial indexes, for queries that use them."""
partial_index("dkist_core_attempt_family", ATTEMPTS.c.family, ATTEMPTS.c.failed_at, where=HAS_FAILED)
_OF_CAUSE = ATTEMPTS.c.cause, ATTEMPTS.c.failed_at, ATTEMPTS.c.family, ATTEMPTS.c.run
partial_index("dkist_core_attempt_cause", *_OF_CAUSE, where=HAS_FAILED)
partial_index("dkist_core_attempt_failed", ATTEMPTS.c.failed_at, ATTEMPTS.c.family, where=HAS_FAILED)
partial_index("dkist_core_attempt_open", ATTEMPTS.c.run, where=IS_OPEN)
partial_index("dkist_core_attempt_alarmed", ATTEMPTS.c.run, where=IS_ALARMED)
partial_index("dkist_core_attempt_measured", ATTEMPTS.c.task_key, ATTEMPTS.c.ended_at, where=WAS_MEASURED)
partial_index("dkist_core_run_recipe", RUNS.c.recipe_run_id, where=text("recipe_run_id IS NOT NULL"))
partial_index("dkist_core_run_alarmed", RUNS.c.number, where=HAS_ALARM)
partial_index("dkist_core_run_running", RUNS.c.number, where=IS_RUNNING)
partial_index("dkist_core_run_settling", RUNS.c.settles_at, where=IS_SETTLING)
Index("dkist_core_run_state", RUNS.c.state, RUNS.c.last_sign_at)
Index("dkist_core_run_state_begin", RUNS.c.state, RUNS.c.begin_order)
Index("dkist_core_run_state_duration", RUNS.c.state, RUNS.c.duration_order)
Index("dkist_core_run_workflow", RUNS.c.workflow_key, RUNS.c.last_sign_at)
Index("dkist_core_run_workflow_begin", RUNS.c.workflow_key, RUNS.c.begin_order)
Index("dkist_core_run_workflow_state", RUNS.c.workflow_key, RUNS.c.state, RUNS.c.begin_order)
# What the chart of the latest hours needs is in the index itself.
Index("dkist_core_run_ended", RUNS.c.ended_at, RUNS.c.state, RUNS.c.workflow_key)
