"""
The dashboard at its size: events per second into the store, room for each attempt, and the times of its pages.

Not here: the events (generated), the store with millions of attempts (many_attempts), and a browser.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pika
from sqlalchemy import func, select, text

from benchmarks.consuming import POSTGRESQL, SQLITE, Databases, with_inbox
from benchmarks.figures import Findings, percentile
from benchmarks.generated import Generated, stream
from benchmarks.ground import Ground, Side, run
from benchmarks.many_attempts import fill
from benchmarks.plan import Plan
from benchmarks.sides.job import Job
from benchmarks.sides.library import settings_of
from benchmarks.sides.pika_parts import parameters, properties
from dkist_processing_core.bus.topology import consumer_topology
from dkist_processing_core.collect.collector import NAME, Collector
from dkist_processing_core.collect.tables import ATTEMPTS, DETAILS, METADATA, RUNS
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.access import Role
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.backend import Backend
from dkist_processing_core.dashboard.bus_status import BusStatus
from dkist_processing_core.dashboard.letters import Letters
from dkist_processing_core.dashboard.links import run_address
from dkist_processing_core.dashboard.options import options
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.dashboard.viewing import Viewing
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database
from dkist_processing_core.journal.message import to_message
from tests.services.postgres import PostgresServer

RUN_COUNTS = (200, 2_000, 20_000)
"""How many runs are generated, each with 50 events."""
MANY_ATTEMPTS = 5_000_000
LIMIT = "limit"
PAGE_MS, ATTEMPT_BYTES, EVENTS_PER_SECOND = 100.0, 2048.0, 5000.0
NOW, RUNS_PAGE, RUN = "Now", "Runs with the chart", "Run"
PAGES_MEASURED = (NOW, RUNS_PAGE, RUN)
COLLECTING = {database: f"events into the store, {database}" for database in (SQLITE, POSTGRESQL)}
ALONE = "consumer alone"
_SIDE = {collects: Side("collector", "library_collect", options={"collects": collects}) for collects in (True, False)}
# The rate of a consumer alone does not depend on the number of events.
_MOST_RUNS_ALONE = 2_000
_SECONDS_BETWEEN_RUNS = 4.0
_TIMES = 40
_OPENED = 10
_PUBLISHED = 5_000


def page_name(page: str, size: str, database: str) -> str:
    """Return the name of the row with the times of a page."""
    return f"{page}, {size}, {database}, p95"


def room_name(size: str, database: str) -> str:
    """Return the name of the row with the room of an attempt."""
    return f"room of an attempt, {size}, {database}"


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the figures for each database; one round, since the numbers of events are large."""
    findings = Findings()
    server = PostgresServer(is_durable=True)
    server.start()
    try:
        databases = Databases(server)
        kinds: dict[str, Callable[[], AbstractContextManager[str]]] = {
            SQLITE: lambda: _file(ground),
            POSTGRESQL: databases.database,
        }
        for name, opened in kinds.items():
            for runs in RUN_COUNTS:
                with opened() as address:
                    _add_collecting(
                        findings, ground, plan.count(runs), name, address, is_largest=runs == RUN_COUNTS[-1]
                    )
            with opened() as address:
                _add_many(findings, plan.count(MANY_ATTEMPTS), name, address)
    finally:
        server.close()
    return findings


def _add_collecting(
    findings: Findings, ground: Ground, runs: int, name: str, address: str, *, is_largest: bool
) -> None:
    """Add how fast the events of some runs are collected, and the figures of the store that they make."""
    with _filled(ground, runs) as job:
        found = run(_SIDE[True], with_inbox(job, address), ground.folder, timeout=3600.0)
        rate, events = found["count"] / found["seconds"], found["count"]
    size = f"{events:,} events"
    if is_largest:
        with _filled(ground, min(runs, _MOST_RUNS_ALONE)) as job, _beside(address) as other:
            alone = run(_SIDE[False], with_inbox(job, other), ground.folder, timeout=3600.0)
        findings.add(COLLECTING[name], "events/s", [rate], [alone["count"] / alone["seconds"]], ALONE)
        findings.add(COLLECTING[name], "events/s", [rate], [EVENTS_PER_SECOND], LIMIT)
        findings.add(f"{COLLECTING[name]}, peak memory", "MiB", [found["peak"]], [alone["peak"]], ALONE)
    with closing(Database.open(address, DKISTProcessingCoreConfiguration())) as database:
        with database.reading() as connection:
            names = (RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id)
            latest = select(*names).order_by(RUNS.c.number.desc()).limit(_OPENED)
            shown = [Run(*row) for row in connection.execute(latest)]
        _add_store(findings, database, address, shown, size, name)


@contextmanager
def _beside(address: str) -> Iterator[str]:
    """Yield the address of another database, for the consumer alone."""
    if address.startswith("sqlite"):
        yield f"{address}-alone"
        return
    opened = closing(Database.open(address, DKISTProcessingCoreConfiguration()))
    with opened as database, database.transaction() as connection:
        # In the same database: its rows of this consumer would be taken for repetitions.
        connection.execute(text("DELETE FROM dkist_core_inbox"))
    yield address


def _add_many(findings: Findings, attempts: int, name: str, address: str) -> None:
    with closing(Database.open(address, DKISTProcessingCoreConfiguration())) as database:
        shown = fill(database, attempts)
        _add_store(findings, database, address, shown[:_OPENED], f"{attempts:,} attempts", name)


def _add_store(findings: Findings, database: Database, address: str, shown: list[Run], size: str, name: str) -> None:
    attempts, room, apart = _room(database)
    findings.add(room_name(size, name), "bytes", [room / attempts], [ATTEMPT_BYTES], LIMIT)
    findings.add(f"{room_name(size, name)}, details apart", "bytes", [apart / attempts], [room / attempts], "the rest")
    for page, addresses in _pages(shown).items():
        times = _times(address, addresses)
        row = page_name(page, size, name)
        findings.add(row, "ms", [percentile(times, 0.95)], [PAGE_MS], LIMIT)
        findings.add(row.replace("p95", "median"), "ms", [percentile(times, 0.5)], [PAGE_MS], LIMIT)


def _pages(shown: list[Run]) -> dict[str, list[str]]:
    """Return the addresses of each measured page."""
    return {NOW: ["/"], RUNS_PAGE: ["/runs"], RUN: [run_address(each) for each in shown]}


def _times(address: str, addresses: list[str]) -> list[float]:
    """Return how long the server takes for pages, in milliseconds."""
    settings = DKISTProcessingCoreConfiguration().model_copy(update={"dkist_core_inbox": address})
    found = []
    with Collector(settings) as collector:
        site = Site("bus", "", "", BusStatus(settings), Letters(settings))
        backend = Backend(site)
        backend.report = lambda: (True, {"consumers": [{"bus": "ok"}]})
        backend.open_store(collector)
        viewing = Viewing(PAGES, options(settings).rules, backend)
        for number in range(-len(addresses), _TIMES):
            path, _, query = addresses[number % len(addresses)].partition("?")
            began = time.perf_counter()
            body, status = viewing.whole(path, dict(parse_qsl(query)), Role.READER)
            if number >= 0:
                found.append((time.perf_counter() - began) * 1000)
            assert status == 200, f"{path}: {status}"  # noqa: PLR2004 - of HTTP; a figure of an error is none
            assert body.endswith("</html>"), path
    return found


def _room(database: Database) -> tuple[int, float, float]:
    """Return the number of attempts, and the bytes of the store with its indexes, without the details and of these."""
    tables = [table.name for table in METADATA.sorted_tables]
    with database.reading() as connection:
        attempts = connection.scalar(select(func.count()).select_from(ATTEMPTS)) or 1
        if database.dialect == "sqlite":
            sizes = text("SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) GROUP BY tbl_name")
        else:
            # As autovacuum does in time: reports wait in a table for their fold only.
            connection.exec_driver_sql("VACUUM")
            sizes = text("SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r'")
        found: dict[str, float] = {name: float(size) for name, size in connection.execute(sizes)}
    apart = found[DETAILS.name]
    return attempts, sum(found.get(name, 0.0) for name in tables) - apart, apart


@contextmanager
def _filled(ground: Ground, runs: int) -> Iterator[Job]:
    """Yield a job whose queue, as the collector declares it, holds the events of runs."""
    begin = datetime.now(UTC) - timedelta(seconds=_SECONDS_BETWEEN_RUNS * (runs + _PUBLISHED))
    with ground.job(1, warm_up=1) as job:
        queue = consumer_topology(settings_of(job), NAME, ()).queues[0]
        count = 0
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
            for event in stream(Generated(runs, between=_SECONDS_BETWEEN_RUNS, begin=begin)):
                message: Any = to_message(event, "")
                channel.basic_publish("", queue.name, message.body, properties(message.properties))
                count += 1
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            while channel.queue_declare(queue.name, passive=True).method.message_count < count:
                time.sleep(0.1)
        yield replace(job, queue=queue.name, queue_arguments=dict(queue.arguments), count=count)


@contextmanager
def _file(ground: Ground) -> Iterator[str]:
    with ground.state_dir() as folder:
        yield f"sqlite:///{folder}/inbox.db"
