"""The library's collector: it takes the events of the archive into the store, and derives the rows of their runs."""

import resource
import time
from collections.abc import Sequence

from sqlalchemy import Connection

from benchmarks.sides.job import Job, report
from benchmarks.sides.library import settings_of
from dkist_processing_core import Consumer
from dkist_processing_core.collect.collector import NAME, Collector
from dkist_processing_core.events import Event

_KIB = 1024
_BATCH = 500


def main() -> None:
    """Collect the messages, or handle them without an effect unless it `collects`; report the time and the memory."""
    job = Job.read()
    settings = settings_of(job).model_copy(update={"dkist_core_inbox": job.options["inbox"]})
    with Collector(settings) as collector:
        began = time.perf_counter()
        if job.options["collects"]:
            with collector.service() as member:
                member.consumer.run(since=member.since, until_idle=True)
            collector.fold()
        else:
            consumer = Consumer(NAME, every_report=True, provisional=True, batch_size=_BATCH, settings=settings)
            consumer.has_spans = False
            consumer.take_batches(_take)
            consumer.run(since="first", until_idle=True)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB
    report(seconds=seconds, count=job.count, peak=peak)


def _take(events: Sequence[Event], transaction: Connection) -> None:
    """Do nothing with the events."""


if __name__ == "__main__":
    main()
