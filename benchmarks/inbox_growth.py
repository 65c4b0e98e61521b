"""
Growth of an inbox's cost with the number of its rows: nine in ten are done, as after some days, and one waits.

Not here: receiving (consuming).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count as numbers

from sqlalchemy import text

from benchmarks.corpus import event_at
from benchmarks.figures import Findings
from benchmarks.plan import Plan
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import encode
from dkist_processing_core.inbox import Arrival, Database, Inbox, Rules

ROWS = (10_000, 100_000, 1_000_000)
STORE, CLAIM = "storing", "claiming and marking one by one"
# A tenth of it waits, more than are claimed in a quick look.
_LEAST = 5000
_STORED, _BATCH = 2000, 1000
_CLAIMED, _CLAIM_LIMIT = 500, 500
_CONTENT_TYPE = "application/cloudevents+json"
# A key is as random as the id of an event.
_SERIES = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
    "SELECT i, lower(hex(randomblob(16))) AS id FROM n",
    "postgresql": "SELECT i, gen_random_uuid()::text AS id FROM generate_series(1, :count) AS i",
}
_FILL = """
    INSERT INTO dkist_core_inbox (consumer, key, name, workflow, version, run_id, task, attempt, reporter, provisional,
        is_end, is_final, body, content_type, received_at, state, due_at, done_at)
    SELECT :consumer, id, 'task.progressed', 'l0_to_l1_visp', '2.10.3', 'run-' || (i / 500), 'ParseL0InputData', 1,
        'task', FALSE, FALSE, FALSE, CASE WHEN i % 10 = 0 THEN :body END, :content_type, :now,
        CASE WHEN i % 10 = 0 THEN 'waiting' ELSE 'done' END, 0, CASE WHEN i % 10 = 0 THEN NULL ELSE :now END
    FROM ({series}) AS filled
"""


def add(findings: Findings, plan: Plan, name: str, empty: Callable[[], AbstractContextManager[str]]) -> None:
    """Add the rates with each number of rows, beside the smallest; each number has a separate database."""
    rates: dict[str, dict[int, list[float]]] = {STORE: defaultdict(list), CLAIM: defaultdict(list)}
    with ExitStack() as stack:
        inboxes = {}
        for rows in ROWS:
            database = Database.open(stack.enter_context(empty()), DKISTProcessingCoreConfiguration())
            stack.callback(database.close)
            inboxes[rows] = stack.enter_context(_filled(database, plan.count(rows, least=_LEAST)))
        series = numbers()
        for rows in plan.turns(ROWS):
            rates[STORE][rows].append(_store(inboxes[rows], plan.count(_STORED), series))
            rates[CLAIM][rows].append(_claim(inboxes[rows], plan.count(_CLAIMED)))
    for what, by_rows in rates.items():
        for rows in ROWS[1:]:
            findings.add(
                name_of(what, name, rows),
                "events/s",
                by_rows[rows],
                by_rows[ROWS[0]],
                f"{ROWS[0]:,} rows",
                shows_spread=True,
            )


def name_of(what: str, database: str, rows: int) -> str:
    """Return the name of a rate."""
    return f"{what}, {rows:,} rows in {database}"


@contextmanager
def _filled(database: Database, count: int) -> Iterator[Inbox]:
    """Yield the inbox of a consumer with that many rows."""
    values = {"consumer": "bench", "count": count, "body": encode(event_at(0)), "now": time.time()}
    with database.transaction() as connection:
        statement = _FILL.format(series=_SERIES[database.dialect])
        connection.execute(text(statement), values | {"content_type": _CONTENT_TYPE})
    if database.dialect == "postgresql":
        # As the server does by itself after a while. This begins no transaction, in which it would be refused.
        with database.reading() as connection:
            connection.execute(text("VACUUM ANALYZE dkist_core_inbox"))
    inbox = Inbox(database, Rules("bench"))
    try:
        yield inbox
    finally:
        inbox.close()


def _store(inbox: Inbox, count: int, series: Iterator[int]) -> float:
    """Return how many new events are stored in a second."""
    events = [event_at(next(series)) for _ in range(count)]
    arrivals = [Arrival(event, encode(event), _CONTENT_TYPE) for event in events]
    began = time.perf_counter()
    for begin in range(0, count, _BATCH):
        inbox.store(arrivals[begin : begin + _BATCH])
    return count / (time.perf_counter() - began)


def _claim(inbox: Inbox, count: int) -> float:
    """Return how many events are claimed and marked in a second, if no handler takes time."""
    began, marked = time.perf_counter(), 0
    while marked < count:
        rows = inbox.claim(min(_CLAIM_LIMIT, count - marked))
        for row in rows:
            inbox.mark_done([row])
        marked += len(rows)
    return count / (time.perf_counter() - began)
