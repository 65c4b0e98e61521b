"""FastStream on uvloop, with a number of publishes waiting for their confirms at any time."""

from collections.abc import Awaitable
from datetime import UTC, datetime

import uvloop
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange
from faststream.security import SASLPlaintext

from benchmarks.sides.job import Job, Prepared, Watch, report
from benchmarks.sides.windowed import publish_in_window


async def publish_all(job: Job) -> None:
    """Publish the messages of the job."""
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

        # Not itself a coroutine function, so that the peer does not pay for an additional one with each message.
        def publish(message: Prepared) -> Awaitable[object]:
            return broker.publish(
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

        await publish_in_window(publish, first, job.options["window"])
        watch = Watch()
        with watch.running():
            await publish_in_window(publish, timed, job.options["window"])
    report(seconds=watch.seconds)


if __name__ == "__main__":
    uvloop.run(publish_all(Job.read()))
