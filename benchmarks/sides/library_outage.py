"""Memory of a publisher that publishes during an outage of its broker, and after it has caught up."""

import re
from pathlib import Path

from benchmarks.corpus import event_at
from benchmarks.sides.job import Job, Watch, report, wait_for_start
from benchmarks.sides.library import check_books, settings_of, wait_until_delivered
from dkist_processing_core.bus import open_bus
from dkist_processing_core.delivery.publisher import Publisher

BATCH = 50


def memory() -> dict[str, float]:
    """Return the current and the highest memory of the process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {name: int(kib) / 1024 for name, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)}


def main() -> None:
    """Publish one event, wait for the outage, publish the job's events, wait for its end, catch up."""
    job = Job.read()
    settings = settings_of(job)
    watch = Watch()
    with open_bus(settings).open_journal() as journal, Publisher.open(settings) as publisher:
        publisher.publish(event_at(0))
        wait_until_delivered(publisher, journal)
        wait_for_start()
        idle = memory()
        for begin in range(0, job.count, BATCH):
            publisher.publish(*map(event_at, range(begin + 1, 1 + min(begin + BATCH, job.count))))
        wait_for_start()
        cut_off = memory()
        pending = journal.books().pending
        with watch.running():
            wait_until_delivered(publisher, journal)
        check_books(journal, job.count + 1)
        report(idle=idle, cut_off=cut_off, caught_up=memory(), pending=pending, seconds=watch.seconds)


if __name__ == "__main__":
    main()
