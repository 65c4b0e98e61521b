"""
Events per second of consumers: taken into an inbox, handled with effects, and with many rows in the inbox.

Not here: the replay of a whole archive, which takes minutes (replay_into_inbox).
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count as numbers

import pika

from benchmarks import inbox_growth
from benchmarks.corpus import event_at
from benchmarks.figures import Findings
from benchmarks.ground import Ground, Side, run
from benchmarks.plan import Plan
from benchmarks.sides.job import Job
from benchmarks.sides.library import settings_of
from benchmarks.sides.pika_parts import parameters, properties
from dkist_processing_core.bus import MOST_AHEAD
from dkist_processing_core.bus.topology import consumer_topology
from dkist_processing_core.events import decode, encode
from tests.services.postgres import PostgresServer

QUEUE = "bench"
BATCH = 100
"""How many effects share a transaction in the rows of batches."""
_PREFETCH = {"prefetch": MOST_AHEAD}
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"

STORED = {database: Side(f"stored in {database}", "library_consumer") for database in (SQLITE, POSTGRESQL)}
TALUS = Side("talus, its prefetch of 1, no inbox", "talus_consumer", is_peer=True, options={"prefetch": 1})
TALUS_PREFETCH = Side("talus, no inbox", "talus_consumer", is_peer=True, options=_PREFETCH)
AIO_PIKA = Side("aio-pika with uvloop, no inbox", "aio_pika_consumer", is_peer=True, options=_PREFETCH)
PEERS = (TALUS, TALUS_PREFETCH, AIO_PIKA)
EFFECTS = Side("effects on PostgreSQL, 1 in a transaction", "library_effects", options={"batch_size": 1})
EFFECTS_BATCH = Side(
    f"effects on PostgreSQL, {BATCH} in a transaction", "library_effects", options={"batch_size": BATCH}
)
HAND_WRITTEN = Side("psycopg, hand-written loop", "psycopg_effects")
DECODED, LOADED = "decoding alone", "json.loads"

_MESSAGES, _EFFECTS, _DECODED = 20_000, 2_000, 5_000
# A slow side gets fewer messages: its rate does not depend on their number.
_COUNTS = {TALUS.label: 3000}
_WARM_UP = 100


@dataclass(frozen=True)
class Databases:
    """Empty databases of a private server, which syncs each commit to the disk."""

    server: PostgresServer
    _numbers: Iterator[int] = field(default_factory=numbers)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the address of an empty database."""
        name = f"bench_{next(self._numbers)}"
        self.server.create_database(name)
        try:
            # Without the name of a driver, which psycopg itself does not know.
            yield self.server.url(name, driver="psycopg").replace("+psycopg", "")
        finally:
            self.server.drop_database(name)


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the rates of all sides, and those with many rows."""
    findings = Findings()
    server = PostgresServer(is_durable=True)
    server.start()
    try:
        databases = Databases(server)
        _add_decoding(findings, plan)
        _add_intake(findings, ground, plan, databases)
        _add_effects(findings, ground, plan, databases)
        inbox_growth.add(findings, plan, SQLITE, lambda: _file(ground))
        inbox_growth.add(findings, plan, POSTGRESQL, databases.database)
    finally:
        server.close()
    return findings


def _add_decoding(findings: Findings, plan: Plan) -> None:
    bodies = [encode(event_at(number)) for number in range(plan.count(_DECODED))]
    rates = defaultdict(list)
    calls: dict[str, Callable[[bytes], object]] = {DECODED: decode, LOADED: json.loads}
    for name in plan.turns(list(calls)):
        began = time.perf_counter()
        for body in bodies:
            calls[name](body)
        rates[name].append(len(bodies) / (time.perf_counter() - began))
    findings.add(DECODED, "events/s", rates[DECODED], rates[LOADED], LOADED, shows_spread=True)


def _add_intake(findings: Findings, ground: Ground, plan: Plan, databases: Databases) -> None:
    rates = defaultdict(list)
    for side in plan.turns((*STORED.values(), *PEERS)):
        with filled_queue(ground, plan.count(_COUNTS.get(side.label, _MESSAGES))) as job:
            if side is STORED[POSTGRESQL]:
                with databases.database() as address:
                    rate = _rate(side, with_inbox(job, address), ground)
            else:
                rate = _rate(side, with_inbox(job, None), ground)
        rates[side.label].append(rate)
    _compare(findings, rates, STORED.values(), PEERS)


def _add_effects(findings: Findings, ground: Ground, plan: Plan, databases: Databases) -> None:
    rates = defaultdict(list)
    for side in plan.turns((EFFECTS, EFFECTS_BATCH, HAND_WRITTEN)):
        with ground.job(plan.count(_EFFECTS, least=500), warm_up=_WARM_UP) as job, databases.database() as address:
            rate = _rate(side, with_inbox(job, address), ground)
        rates[side.label].append(rate)
    _compare(findings, rates, (EFFECTS, EFFECTS_BATCH), (HAND_WRITTEN,))


def _compare(findings: Findings, rates: dict[str, list[float]], ours: Iterable[Side], others: Sequence[Side]) -> None:
    for side in ours:
        for other in others:
            findings.add(side.label, "events/s", rates[side.label], rates[other.label], other.label, shows_spread=True)


def _rate(side: Side, job: Job, ground: Ground) -> float:
    found = run(side, job, ground.folder)
    rate: float = found["count"] / found["seconds"]
    return rate


def with_inbox(job: Job, address: str | None) -> Job:
    """Return a job with the address of the inbox; None is the file beside the journals."""
    return replace(job, options=job.options | {"inbox": address})


@contextmanager
def filled_queue(ground: Ground, count: int) -> Iterator[Job]:
    """Yield a job whose queue, as a named consumer declares it, holds the messages."""
    with ground.job(count, warm_up=_WARM_UP) as job:
        queue = consumer_topology(settings_of(job), QUEUE, ()).queues[0]
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
            # Not through the exchange: the archive stays empty, so that no side shares the broker with it.
            for message in (message for part in job.prepared() for message in part):
                channel.basic_publish("", queue.name, message.body, properties(message))
        with pika.BlockingConnection(parameters(job)) as connection:
            channel = connection.channel()
            while channel.queue_declare(queue.name, passive=True).method.message_count < count + _WARM_UP:
                time.sleep(0.05)
        yield replace(job, queue=queue.name, queue_arguments=dict(queue.arguments))


@contextmanager
def _file(ground: Ground) -> Iterator[str]:
    with ground.state_dir() as folder:
        yield f"sqlite:///{folder}/inbox.db"
