"""The system to replace: talus's `DurableConsumer`, which acknowledges each message after it was validated."""

import time
from typing import Any

from talus import ConsumeMessageBase, DurableConsumer, Queue

from benchmarks.sides.job import Job, report
from benchmarks.sides.pika_parts import parameters


def main() -> None:
    """Receive, validate and acknowledge the messages of the job's queue; report the time from the first to the last."""
    job = Job.read()
    queue = Queue(name=job.queue, arguments=job.queue_arguments)
    received: list[float] = []
    with DurableConsumer(queue, job.options["prefetch"], parameters(job)) as consumer:

        def process(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            message = ConsumeMessageBase(method, properties, body)
            channel.basic_ack(message.delivery_tag)
            received.append(time.perf_counter())
            if len(received) == job.warm_up + job.count:
                channel.stop_consuming()

        consumer.listen(process)
    report(seconds=received[-1] - received[job.warm_up - 1], count=job.count)


if __name__ == "__main__":
    main()
