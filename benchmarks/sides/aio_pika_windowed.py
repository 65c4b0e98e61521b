"""aio-pika on uvloop, with a number of publishes waiting for their confirms at any time."""

from collections.abc import Awaitable
from datetime import UTC, datetime

import aio_pika
import uvloop

from benchmarks.sides.job import Job, Prepared, Watch, report
from benchmarks.sides.windowed import publish_in_window


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
    """Publish the messages of the job."""
    first, timed = ([to_message(message) for message in part] for part in job.prepared())
    connection = await aio_pika.connect(
        host=job.host, port=job.port, login=job.username, password=job.password, virtualhost=job.vhost
    )
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(job.exchange)

        # Not itself a coroutine function, so that the peer does not pay for an additional one with each message.
        def publish(keyed: tuple[str, aio_pika.Message]) -> Awaitable[object]:
            return exchange.publish(keyed[1], keyed[0], mandatory=True)

        await publish_in_window(publish, first, job.options["window"])
        watch = Watch()
        with watch.running():
            await publish_in_window(publish, timed, job.options["window"])
    report(seconds=watch.seconds)


if __name__ == "__main__":
    uvloop.run(publish_all(Job.read()))
