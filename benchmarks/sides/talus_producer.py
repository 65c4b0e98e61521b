"""
The system to replace: talus's `DurableProducer`, opened for each event as that system does, or kept open.

Opening it declares exchange, queue and binding, which is part of the cost of an event there.
"""

import time
from collections.abc import Callable
from functools import partial

from pika.exchange_type import ExchangeType
from talus import Binding, DurableProducer, Exchange, PublishMessageBase, Queue

from benchmarks.sides.job import Job, report
from benchmarks.sides.pika_parts import parameters

HEARTBEAT_SECONDS = 3600  # as its own factory of a producer's parameters defines it, which supports no virtual host


def producer_of(job: Job) -> Callable[[], DurableProducer]:
    """Return a function that opens a producer on the existing topology."""

    class Bound(PublishMessageBase):  # type: ignore[misc]  # talus has no types
        default_routing_key = "#"

    its_parameters = parameters(job)
    its_parameters.heartbeat = HEARTBEAT_SECONDS
    queue = Queue(name=job.queue, arguments=job.queue_arguments)
    return partial(
        DurableProducer,
        queue_bindings=Binding(queue=queue, message=Bound),
        publish_exchange=Exchange(name=job.exchange, type=ExchangeType.topic),
        connection_parameters=its_parameters,
    )


def main() -> None:
    """Publish the messages of the job, with a `pause` before each one if it is set, and report the time of each."""
    job = Job.read()
    open_producer = producer_of(job)

    class Sent(PublishMessageBase):  # type: ignore[misc]  # talus has no types
        default_routing_key = job.prepared()[1][0].routing_key

    first, timed = ([Sent(message.body) for message in part] for part in job.prepared())
    pause: float = job.options.get("pause", 0)
    laps = []

    def publish_each(messages: list[Sent]) -> None:
        for message in messages:
            if pause:
                time.sleep(pause)
            began = time.perf_counter()
            with open_producer() as producer:
                producer.publish(message)
            laps.append(time.perf_counter() - began)

    def publish_kept(messages: list[Sent], producer: DurableProducer) -> None:
        for message in messages:
            if pause:
                time.sleep(pause)
            began = time.perf_counter()
            producer.publish(message)
            laps.append(time.perf_counter() - began)

    if job.options["kept"]:
        with open_producer() as producer:
            publish_kept(first, producer)
            laps.clear()
            publish_kept(timed, producer)
    else:
        publish_each(first)
        laps.clear()
        publish_each(timed)
    report(seconds=sum(laps), laps=laps)


if __name__ == "__main__":
    main()
