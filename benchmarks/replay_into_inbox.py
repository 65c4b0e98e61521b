"""
Replay of a whole archive into a consumer: its rate, its memory, and whether each event had its effect exactly once.

    .venv/bin/python -m benchmarks.replay_into_inbox 1000000

It takes minutes, so it is no part of `make bench`. Not here: the consumer's process (sides.library_replay).
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pika
from msgspec import structs

from benchmarks.consuming import POSTGRESQL, SQLITE, Databases, with_inbox
from benchmarks.corpus import event_at
from benchmarks.ground import Ground, Run, Side, open_ground
from benchmarks.sides.job import Job
from benchmarks.sides.pika_parts import parameters
from dkist_processing_core.journal.message import Message, to_message
from tests.services.postgres import PostgresServer

MOST_MIB = 150
_SIDE = Side("replay", "library_replay")
_LONGEST_SECONDS = 3600.0
_PER_RUN = 100_000


def replay(ground: Ground, count: int, address: str | None) -> tuple[str, bool]:
    """Fill an archive and replay it; return the figures in words, and whether they are as promised."""
    with ground.job(1, warm_up=0) as job:
        began = time.perf_counter()
        _fill(job, count)
        filled = time.perf_counter() - began
        started = Run(_SIDE, with_inbox(job, address), ground.folder)
        try:
            found = started.result(_LONGEST_SECONDS)
        finally:
            started.end()
    is_complete = found["effects"] == found["events"] == count
    missing, repeated = count - found["events"], found["effects"] - found["events"]
    words = (
        f"{count:,} events: {count / found['seconds']:,.0f} events/s, peak memory {found['peak']:.0f} MiB "
        f"(before: {found['idle']:.0f} MiB), {missing:,} missing, {repeated:,} repeated; "
        f"the archive was filled in {filled:.0f} s"
    )
    return words, is_complete and found["peak"] <= MOST_MIB


def _fill(job: Job, count: int) -> None:
    """Publish so many different events; when the connection has closed, the broker has them all."""
    with pika.BlockingConnection(parameters(job)) as connection:
        channel = connection.channel()
        for message in _messages(count, job.exchange):
            properties = pika.BasicProperties(
                content_type=message.properties.content_type,
                delivery_mode=pika.DeliveryMode.Persistent.value,
                message_id=message.properties.message_id,
                type=message.properties.type,
            )
            channel.basic_publish(message.exchange, message.routing_key, message.body, properties)


def _messages(count: int, exchange: str) -> Iterator[Message]:
    for number in range(count):
        event = event_at(number % _PER_RUN)
        yield to_message(structs.replace(event, run_id=f"run-{number // _PER_RUN}"), exchange)


def main() -> int:
    """Replay into both kinds of inboxes, or into one; return 1 if a result is not as promised."""
    parser = argparse.ArgumentParser(description="Replay an archive into a consumer's inbox.")
    parser.add_argument("events", type=int)
    parser.add_argument("--inbox", choices=(SQLITE, POSTGRESQL), help="only this kind")
    arguments = parser.parse_args()
    is_kept = True
    with ExitStack() as stack:
        ground = stack.enter_context(open_ground())
        server = PostgresServer(is_durable=True)
        stack.callback(server.close)
        for kind in (SQLITE, POSTGRESQL):
            if arguments.inbox not in (None, kind):
                continue
            address = None
            if kind == POSTGRESQL:
                server.start()
                address = stack.enter_context(Databases(server).database())
            words, is_so = replay(ground, arguments.events, address)
            print(f"{kind}: {words}", flush=True)
            is_kept &= is_so
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
