"""aio-pika on uvloop as a consumer without an inbox: it decodes each message as JSON and acknowledges it."""

import asyncio
import json
import time

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.sides.job import Job, report


async def consume_all(job: Job) -> None:
    """Receive, decode and acknowledge the messages of the job's queue; report the time from the first to the last."""
    received: list[float] = []
    connection = await aio_pika.connect(
        host=job.host, port=job.port, login=job.username, password=job.password, virtualhost=job.vhost
    )
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=job.options["prefetch"])
        queue = await channel.get_queue(job.queue)
        is_complete = asyncio.Event()

        async def process(message: AbstractIncomingMessage) -> None:
            json.loads(message.body)
            await message.ack()
            received.append(time.perf_counter())
            if len(received) == job.warm_up + job.count:
                is_complete.set()

        await queue.consume(process)
        await is_complete.wait()
    report(seconds=received[-1] - received[job.warm_up - 1], count=job.count)


if __name__ == "__main__":
    uvloop.run(consume_all(Job.read()))
