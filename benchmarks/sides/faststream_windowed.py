"""FastStream on uvloop, with a number of publishes waiting for their confirms at any time."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import uvloop
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange
from faststream.security import SASLPlaintext

from benchmarks.sides.job import Job, Prepared, Watch, report


async def publish_all(job: Job) -> None:
    """Publish what the job says."""
    first, timed = job.prepared()
    exchange = RabbitExchange(job.exchange, type=ExchangeType.TOPIC, durable=True, declare=False)
    broker = RabbitBroker(
        host=job.host,
        port=job.port,
        virtualhost=job.vhost,
        security=SASLPlaintext(username=job.username, password=job.password),
        logger=None,
    )
    async with broker:
        await broker.start()

        async def publish(messages: Iterable[Prepared]) -> None:
            for message in messages:
                await broker.publish(
                    message.body,
                    exchange=exchange,
                    routing_key=message.routing_key,
                    mandatory=True,
                    persist=True,
                    content_type=message.content_type,
                    correlation_id=message.correlation_id,
                    message_id=message.message_id,
                    timestamp=datetime.fromtimestamp(message.timestamp, UTC),
                    message_type=message.type,
                )

        async def publish_in_window(messages: list[Prepared]) -> None:
            left = iter(messages)
            await asyncio.gather(*(publish(left) for _ in range(job.options["window"])))

        await publish_in_window(first)
        watch = Watch()
        with watch.running():
            await publish_in_window(timed)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    uvloop.run(publish_all(Job.read()))
