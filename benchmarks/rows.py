"""
Cost of a journal by its number of rows: open, publish, list, drain, and close while the broker is dead.

    .venv/bin/python -m benchmarks.rows 10000 100000 1000000

A tenth of the embedded journal's rows is too old. The drain goes on for some seconds at most, for its rate.
"""

import argparse
import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.outbox import drain, outboxes
from tests.facts import progressed
from tests.services.broker import open_broker
from tests.services.rabbitmq import RabbitMQNode
from tests.services.sockets import closed_port

ROUNDS = 5
DRAIN_SECONDS = 15.0
_WEEK = 7 * 24 * 3600


def _settings(folder: Path, **variables: object) -> DKISTProcessingCoreConfiguration:
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=folder, **variables)  # type: ignore[arg-type]


def _fill(settings: DKISTProcessingCoreConfiguration, count: int) -> None:
    """Put that many rows into the journal of the settings, a tenth of them more than a week old."""
    bus = open_bus(settings)
    bus.open_journal().close()
    message = to_message(progressed("A", 1, note="x" * 500), bus.event_exchange)
    row = (message.exchange, message.routing_key, message.properties.to_json(), message.body)
    now, old = time.time(), count // 10
    with closing(sqlite3.connect(bus.journal_path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO message (appended, exchange, routing_key, properties, body) VALUES (?, ?, ?, ?, ?)",
            ((now - (_WEEK + 3600 if number < old else 0), *row) for number in range(count)),
        )
        if not bus.is_remote:
            connection.execute("INSERT OR REPLACE INTO fact VALUES ('prune_to', ?)", (old,))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _median(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def measure(folder: Path, count: int, node: RabbitMQNode | None) -> dict[str, float]:
    """Return the cost of each step with so many rows, in milliseconds, and the rate of a drain in messages a second."""
    embedded = _settings(folder / f"embedded-{count}")
    _fill(embedded, count)
    found: dict[str, float] = {}
    bus = open_bus(embedded)
    began = time.perf_counter()
    bus.open_journal().close()
    found["open, some expired"] = 1000 * (time.perf_counter() - began)
    found["open"] = _median(lambda: bus.open_journal().close())
    with Publisher.open(embedded) as publisher:
        found["publish"] = _median(lambda: publisher.publish(progressed("A", 2)))
    shutil.rmtree(folder / f"embedded-{count}")
    with closed_port() as port:
        mesh = json.dumps({"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}})
        dead = _settings(folder / f"dead-{count}", mesh_config=mesh)
        _fill(dead, count)
        found["list"] = _median(lambda: outboxes(dead))

        def end() -> float:
            publisher = Publisher.open(dead)
            publisher.publish(progressed("A", 3))
            began = time.perf_counter()
            publisher.close()
            return time.perf_counter() - began

        found["close, broker dead"] = 1000 * statistics.median(end() for _ in range(ROUNDS))
        shutil.rmtree(folder / f"dead-{count}")
    if node is not None:
        with open_broker(node) as broker:
            variables = {name.lower(): value for name, value in broker.env.items()}
            alive = _settings(folder / f"alive-{count}", **variables)
            _fill(alive, count)
            began = time.perf_counter()
            *_, last = drain(alive, timeout=DRAIN_SECONDS)
            found["drain, messages/s"] = last.confirmed / (time.perf_counter() - began)
            shutil.rmtree(folder / f"alive-{count}")
    return found


def main() -> None:
    """Measure each size of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=int)
    parser.add_argument("--without-drain", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dkist-core-rows-", dir="/var/tmp") as name:
        folder = Path(name)
        node = None if arguments.without_drain else RabbitMQNode(folder / "node")
        try:
            if node is not None:
                node.start()
            for count in arguments.rows:
                found = measure(folder, count, node)
                told = ", ".join(f"{what}: {value:,.1f}" for what, value in found.items())
                sys.stdout.write(f"{count:,} rows: {told}\n")
                sys.stdout.flush()
        finally:
            if node is not None:
                node.close()


if __name__ == "__main__":
    main()
