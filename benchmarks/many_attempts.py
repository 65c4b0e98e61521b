"""
A store with millions of attempts: the runs of a small store, copied by statements of the database.

Times of each copy are earlier than those of the one before. Not here: the events of the small store (generated).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Table, func, select, update

from benchmarks.generated import Generated, stream
from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import ATTEMPTS, DETAILS, PACKS, RUNS, TALLIES, TASKS
from dkist_processing_core.events import Event
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database
from dkist_processing_core.runs import State

_TEMPLATES = 200
_BATCH = 100
_COPIED = (RUNS, TASKS, ATTEMPTS, PACKS, DETAILS)
# By which copies are earlier, and columns that are times.
_SHIFT_SECONDS = 4 * 3600.0
_SPAN = timedelta(minutes=_TEMPLATES)
_TIMES = (
    *("began_at", "ended_at", "last_sign_at", "received_at", "first_received_at", "begin_order", "sign_received_at"),
    *("dispatched_at", "started_at", "failed_at", "sign_at"),
)
# As `run_identity` makes it, of names without a character that JSON changes.
_IDENTITY = {
    "sqlite": "identity_of(workflow_name, workflow_version, run_id || {digits})",
    "postgresql": (
        "substring(sha256(convert_to('[\"' || workflow_name || '\", \"' || workflow_version || '\", \"' || run_id || "
        "{digits} || '\"]', 'UTF8')) FROM 1 FOR 16)"
    ),
}
_DIGITS = {"sqlite": "printf('%08d', copy)", "postgresql": "lpad(copy::text, 8, '0')"}
_HASTE = {
    "sqlite": ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-1000000"),
    # Foreign keys are not checked for each row.
    "postgresql": (
        "SET session_replication_role = replica",
        "SET synchronous_commit = off",
        "SET maintenance_work_mem = '1GB'",
    ),
}
_SHOWN = 40


def fill(database: Database, attempts: int) -> list[Run]:
    """Fill an empty store with that many attempts at least, and return some of its runs, which pages can show."""
    last = _add_templates(database)
    with database.reading() as connection:
        of_ended = select(func.count()).select_from(ATTEMPTS.join(RUNS)).where(RUNS.c.state != State.RUNNING)
        ended = connection.scalar(of_ended) or 1
        most = connection.scalar(select(func.max(RUNS.c.number))) or 0
    # The templates themselves are the first of them.
    copies = max(1, -(-attempts // ended) - 1)
    with _in_haste(database) as connection:
        for table in _COPIED:
            _copy(connection, table, copies, most)
    with database.transaction() as connection:
        of_ended = update(TALLIES).where(TALLIES.c.state != State.RUNNING)
        connection.execute(of_ended.values(runs=TALLIES.c.runs * (copies + 1)))
        shown = [last, *_shown(connection, most, copies)]
    if database.dialect == "postgresql":
        # As autovacuum does in time.
        with database.reading() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    return shown


@contextmanager
def _in_haste(database: Database) -> Iterator[Connection]:
    """Yield a connection for many rows: their indexes are made at the end, and no power cut is survived until then."""
    # SQLite changes its ways of writing only for a single connection.
    database.engine.dispose()
    indexes = [index for table in _COPIED for index in table.indexes]
    # Each statement by itself: within a transaction SQLite would keep all changed pages.
    with database.reading() as connection:
        for statement in _HASTE[database.dialect]:
            connection.exec_driver_sql(statement)
        if database.dialect == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.create_function("identity_of", 3, run_identity, deterministic=True)
        for index in indexes:
            index.drop(connection)
        yield connection
        for index in indexes:
            index.create(connection)
    database.engine.dispose()


def _add_templates(database: Database) -> Run:
    """Add the runs that are copied, of which the last go on; return the last that has ended."""
    store, events = Store(), list(stream(Generated(_TEMPLATES, begin=datetime.now(UTC) - _SPAN)))
    for part in _parts(events[: -len(events) // 50]):
        with database.transaction() as connection:
            store.add(connection, *part)
    count = 1
    while count:
        with database.transaction() as connection:
            count = store.fold(connection, 50)
    with database.reading() as connection:
        query = select(RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id)
        row = connection.execute(query.where(RUNS.c.state == "finished").order_by(RUNS.c.ended_at.desc())).first()
    assert row is not None
    return Run(*row)


def _parts(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    return (events[first : first + _BATCH] for first in range(0, len(events), _BATCH))


def _copy(connection: Connection, table: Table, copies: int, most: int) -> None:
    """Copy the rows of ended runs that often, the earlier copies with greater numbers of runs."""
    key = "number" if table is RUNS else "run"
    ended = "SELECT number FROM dkist_core_run WHERE state <> 'running'"
    # A statement that reads the table into which it writes would store all rows elsewhere first.
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE template AS SELECT * FROM {table.name} WHERE {key} <= {most} AND {key} IN ({ended})"
    )
    names = ", ".join(column.name for column in table.columns)
    values = ", ".join(_value(connection.dialect.name, table, column, most) for column in table.columns)
    for first in range(1, copies + 1, _BATCH):
        last = min(first + _BATCH - 1, copies)
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({names}) "
            f"WITH RECURSIVE copies (copy) AS (SELECT {first} UNION ALL "
            f"SELECT 1 + copy FROM copies WHERE copy < {last}) "
            f"SELECT {values} FROM copies CROSS JOIN template"
        )
    connection.exec_driver_sql("DROP TABLE template")


def _value(dialect: str, table: Table, column: Column[object], most: int) -> str:
    name = column.name
    if (table is RUNS and name in ("number", "revision")) or name == "run":
        return f"{name} + copy * {most}"
    if name in _TIMES:
        return f"{name} - copy * {_SHIFT_SECONDS}"
    if name == "identity":
        return _IDENTITY[dialect].format(digits=_DIGITS[dialect])
    if table is RUNS and name in ("run_id", "characters"):
        return f"{name} || {_DIGITS[dialect]}"
    if name == "ending":
        return _DIGITS[dialect]
    return name


def _shown(connection: Connection, most: int, copies: int) -> Iterator[Run]:
    """Yield some copies, each of another run."""
    names = (RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id, RUNS.c.identity)
    for copy in range(1, copies + 1, max(1, copies // _SHOWN)):
        query = select(*names).where(RUNS.c.number >= most * copy + 1 + copy % most).order_by(RUNS.c.number).limit(1)
        *names_of_run, identity = connection.execute(query).one()
        assert bytes(identity) == run_identity(*names_of_run[:3]), "pages would not find the run"
        yield Run(*names_of_run)
