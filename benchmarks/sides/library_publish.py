"""Cost of `publish()` for a task: the time of each call, at a task's pace or in a tight loop."""

import resource
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.corpus import event_at
from benchmarks.sides.job import Job, report, wait_for_start
from benchmarks.sides.library import settings_of, wait_until_delivered
from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Journal
from dkist_processing_core.settings.reading import secrets_in

UNREACHABLE_SECONDS = 25.0


class UnsyncedBus(AmqpBus):
    """The same bus with a journal that does not wait for the disk: it leaves the library's own cost."""

    def open_journal(self, *, synced: bool = True, **options: Any) -> Journal:  # noqa: ARG002 - the bus's signature
        """Open the outbox without syncing."""
        return super().open_journal(synced=False, **options)


def open_publisher(settings: DKISTProcessingCoreConfiguration, *, synced: bool) -> Publisher:
    """Return the publisher that a task has, or an otherwise equal one without the syncs."""
    if synced:
        return Publisher.open(settings)
    return Publisher(UnsyncedBus(settings), secrets=secrets_in(settings))


def main() -> None:
    """Publish the job's events: `pause` between events, `synced` or not, with a broker `marked` unreachable or not."""
    job = Job.read()
    settings = settings_of(job)
    events = [event_at(job.options.get("first", 0) + number) for number in range(job.warm_up + job.count)]
    pause: float = job.options["pause"]
    laps = []
    with ExitStack() as stack:
        journal = stack.enter_context(open_bus(settings).open_journal())
        if job.options["marked"]:
            journal.unreachable_until = time.time() + UNREACHABLE_SECONDS
        publisher = stack.enter_context(open_publisher(settings, synced=job.options["synced"]))
        for event in events[: job.warm_up]:
            publisher.publish(event)
        if job.options["barrier"]:
            wait_for_start()
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_THREAD)
        for event in events[job.warm_up :]:
            if pause:
                time.sleep(pause)
            lap = time.perf_counter()
            publisher.publish(event)
            laps.append(time.perf_counter() - lap)
        ended = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_THREAD)
        if job.options["delivers"]:
            wait_until_delivered(publisher, journal)
        delivered = time.monotonic()
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    report(laps=laps, began=began, ended=ended, delivered=delivered, cpu=cpu)


if __name__ == "__main__":
    main()
