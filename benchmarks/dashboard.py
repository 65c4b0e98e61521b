"""
The dashboard at its size: events per second into the store, and the figures of the store that they make.

Not here: the events (generated), and the store with millions of attempts and its pages (pages).
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
from sqlalchemy import select, text

from benchmarks.consuming import POSTGRESQL, SQLITE, with_inbox
from benchmarks.figures import Findings
from benchmarks.generated import Generated, stream
from benchmarks.ground import Ground, Side, run
from benchmarks.pages import add_store, both_databases
from benchmarks.plan import Plan
from benchmarks.sides.job import Job
from benchmarks.sides.pika_parts import parameters, properties
from dkist_processing_core.collect.tables import RUNS
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database
from dkist_processing_core.journal.message import to_message

RUN_COUNTS = (200, 2_000, 20_000)
"""How many runs are generated, each with 50 events."""
LIMIT = "limit"
EVENTS_PER_SECOND = 5000.0
COLLECTING = {database: f"events into the store, {database}" for database in (SQLITE, POSTGRESQL)}
ALONE = "consumer alone"
_SIDE = {collects: Side("collector", "library_collect", options={"collects": collects}) for collects in (True, False)}
# The rate of a consumer alone does not depend on the number of events.
_MOST_RUNS_ALONE = 2_000
_SECONDS_BETWEEN_RUNS = 4.0
_OPENED = 10
# How long each run of a side may take.
_SIDE_SECONDS = 1200.0
_PUBLISHED = 5_000


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the figures for each database; one round, since the numbers of events are large."""
    findings = Findings()
    with both_databases(ground) as kinds:
        for name, opened in kinds.items():
            for runs in RUN_COUNTS:
                with opened() as address:
                    _add_collecting(
                        findings, ground, plan.count(runs), name, address, is_largest=runs == RUN_COUNTS[-1]
                    )
    return findings


def _add_collecting(
    findings: Findings, ground: Ground, runs: int, name: str, address: str, *, is_largest: bool
) -> None:
    """Add how fast the events of some runs are collected, and the figures of the store that they make."""
    with _filled(ground, runs) as job:
        found = run(_SIDE[True], with_inbox(job, address), ground.folder, timeout=_SIDE_SECONDS)
        rate, events = found["count"] / found["seconds"], found["count"]
    size = f"{events:,} events"
    if is_largest:
        with _filled(ground, min(runs, _MOST_RUNS_ALONE)) as job, _beside(address) as other:
            alone = run(_SIDE[False], with_inbox(job, other), ground.folder, timeout=_SIDE_SECONDS)
        findings.add(COLLECTING[name], "events/s", [rate], [alone["count"] / alone["seconds"]], ALONE)
        findings.add(COLLECTING[name], "events/s", [rate], [EVENTS_PER_SECOND], LIMIT)
        findings.add(f"{COLLECTING[name]}, peak memory", "MiB", [found["peak"]], [alone["peak"]], ALONE)
    with closing(Database.open(address, DKISTProcessingCoreConfiguration())) as database:
        with database.reading() as connection:
            names = (RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id, RUNS.c.recipe_run_id)
            latest = select(*names).order_by(RUNS.c.number.desc()).limit(_OPENED)
            shown = [Run(*row) for row in connection.execute(latest)]
        add_store(findings, database, address, shown, size, name)


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


@contextmanager
def _filled(ground: Ground, runs: int) -> Iterator[Job]:
    """Yield a job whose archive holds the events of runs: the queue of a consumer is limited to fewer messages."""
    begin = datetime.now(UTC) - timedelta(seconds=_SECONDS_BETWEEN_RUNS * (runs + _PUBLISHED))
    with ground.job(1, warm_up=1) as job:
        count = 0
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            for event in stream(Generated(runs, between=_SECONDS_BETWEEN_RUNS, begin=begin)):
                message: Any = to_message(event, "")
                channel.basic_publish("", job.queue, message.body, properties(message.properties))
                count += 1
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            while channel.queue_declare(job.queue, passive=True).method.message_count < count:
                time.sleep(0.1)
        yield replace(job, count=count)
