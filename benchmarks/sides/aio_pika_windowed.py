"""The fastest confirming peer: aio-pika on uvloop, with a number of publishes waiting for confirms at any time."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import aio_pika
import uvloop

from benchmarks.sides.job import Job, Prepared, Watch, report


def to_message(message: Prepared) -> tuple[str, aio_pika.Message]:
    """Return the routing key and the message in aio-pika's form."""
    return message.routing_key, aio_pika.Message(
        message.body,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message.message_id,
        timestamp=datetime.fromtimestamp(message.timestamp, UTC),
        type=message.type,
    )


async def publish_all(job: Job) -> None:
    """Publish what the job says."""
    first, timed = ([to_message(message) for message in part] for part in job.prepared())
    connection = await aio_pika.connect(
        host=job.host, port=job.port, login=job.username, password=job.password, virtualhost=job.vhost
    )
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(job.exchange)

        async def publish(messages: Iterable[tuple[str, aio_pika.Message]]) -> None:
            for key, message in messages:
                await exchange.publish(message, key, mandatory=True)

        async def publish_in_window(messages: list[tuple[str, aio_pika.Message]]) -> None:
            # One iterator for all: whoever has its confirm takes the next message.
            left = iter(messages)
            await asyncio.gather(*(publish(left) for _ in range(job.options["window"])))

        await publish_in_window(first)
        watch = Watch()
        with watch.running():
            await publish_in_window(timed)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    uvloop.run(publish_all(Job.read()))
