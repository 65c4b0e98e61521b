"""
A store with millions of attempts: the runs of a small store, copied by statements of the database.

Times of each copy are earlier than those of the one before. Not here: the events of the small store (generated).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, Connection, Table, func, select, update

from benchmarks.generated import Generated, stream
from dkist_processing_core.collect.folding import Store
from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.tables import ATTEMPTS, DETAILS, PACKS, RUNS, TALLIES, TASKS
from dkist_processing_core.events import Event
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database

_TEMPLATES = 200
_BATCH = 500
# By which copies are earlier, and columns that are times.
_SHIFT_SECONDS = 4 * 3600.0
_SPAN = timedelta(minutes=_TEMPLATES)
_TIMES = (
    *("began_at", "ended_at", "last_sign_at", "received_at", "first_received_at", "begin_order", "sign_received_at"),
    *("dispatched_at", "started_at", "failed_at", "sign_at"),
)
_DIGESTS = {"sqlite": "randomblob(16)", "postgresql": "decode(md5(random()::text), 'hex')"}
# In every so many copies there is a run that pages can show.
_SHOWN_EACH = 50


def fill(database: Database, attempts: int) -> list[Run]:
    """Fill an empty store with that many attempts at least, and return some of its runs, which pages can show."""
    last = _add_templates(database)
    with database.transaction() as connection:
        ended = connection.scalar(select(func.count()).select_from(ATTEMPTS)) or 1
        most = connection.scalar(select(func.max(RUNS.c.number))) or 0
    copies = max(1, attempts // ended - 1)
    for first in range(1, copies + 1, _BATCH):
        with database.transaction() as connection:
            for number in range(first, min(first + _BATCH, copies + 1)):
                _copy(connection, number, number * most)
    with database.transaction() as connection:
        connection.execute(update(TALLIES).values(runs=TALLIES.c.runs * (copies + 1)))
        shown = [last, *_shown(connection, range(most + 1, most * (copies + 1), most * _SHOWN_EACH))]
    if database.dialect == "postgresql":
        # As autovacuum does in time.
        with database.reading() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    return shown


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


def _copy(connection: Connection, number: int, offset: int) -> None:
    shift = number * _SHIFT_SECONDS
    for table in (RUNS, TASKS, ATTEMPTS, PACKS, DETAILS):
        columns = list(table.columns)
        values = ", ".join(_value(connection.dialect.name, table, column, number, offset, shift) for column in columns)
        names = ", ".join(column.name for column in columns)
        key = "number" if table is RUNS else "run"
        ended = "SELECT number FROM dkist_core_run WHERE state <> 'running'"
        templates = f"{key} <= {offset // number} AND {key} IN ({ended})"
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {table.name} WHERE {templates}"
        )


def _value(dialect: str, table: Table, column: Column[object], number: int, offset: int, shift: float) -> str:
    name = column.name
    if (table is RUNS and name in ("number", "revision")) or name == "run":
        return f"{name} + {offset}"
    if name in _TIMES:
        return f"{name} - {shift}"
    if name == "identity":
        return _DIGESTS[dialect]
    if table is RUNS and name in ("run_id", "characters"):
        return f"{name} || '{number:06d}'"
    if name == "ending":
        return f"'{number:08d}'"
    return name


def _shown(connection: Connection, numbers: range) -> Iterator[Run]:
    """Yield some copies, with the digest of their identity, by which pages find them."""
    for number in numbers:
        names = (RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id)
        row = connection.execute(select(*names).where(RUNS.c.number == number)).first()
        if row is None:
            continue
        identity = run_identity(*row[:3])
        connection.execute(update(RUNS).where(RUNS.c.number == number).values(identity=identity))
        yield Run(*row)
