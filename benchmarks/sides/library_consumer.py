"""The library's intake: it receives batches, decodes and stores each event once, and then acknowledges them."""

import time

from benchmarks.sides.job import Job, report
from benchmarks.sides.library import settings_of
from dkist_processing_core import Consumer
from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.inbox import Database


def main() -> None:
    """Store the messages of the job's queue in the job's `inbox`; report the time from the first batch to the last."""
    job = Job.read()
    settings = settings_of(job)
    acknowledged = [0.0]

    def note(step: str) -> None:
        if step == "acknowledged":
            acknowledged.append(time.perf_counter())

    consumer = Consumer(job.queue, inbox=job.options["inbox"])
    consumer.on()(print)
    database = Database.open(consumer.inbox, settings)
    service = ConsumerService(consumer, open_bus(settings), database, steps=note)
    intake, inbox = service.intake, service.inbox
    assert intake is not None, "it has a handler"
    # The first batch is small. It opens the connections.
    while not (first := inbox.counts().waiting):
        intake.step()
    began = time.perf_counter()
    while intake.quiet_at is None:
        intake.step()
    stored = inbox.counts().waiting
    intake.close()
    inbox.close()
    database.close()
    if stored != job.warm_up + job.count:
        msg = f"{job.warm_up + job.count} messages were in the queue, {stored} are in the inbox"
        raise RuntimeError(msg)
    report(seconds=acknowledged[-1] - began, count=stored - first)


if __name__ == "__main__":
    main()
