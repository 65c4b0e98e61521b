"""The library draining an outbox that another process has filled: sent, confirmed, removed."""

from benchmarks.corpus import event_at
from benchmarks.sides.job import Job, Watch, report
from benchmarks.sides.library import check_books, settings_of, to_messages, wait_until_delivered
from dkist_processing_core.bus import open_bus
from dkist_processing_core.delivery.publisher import Publisher


def main() -> None:
    """Drain the job's number of messages."""
    job = Job.read()
    settings = settings_of(job)
    first, timed = (to_messages(part, job.exchange) for part in job.prepared())
    with open_bus(settings).open_journal() as journal, Publisher.open(settings) as publisher:
        journal.append(first)
        # Publishing wakes the drainer, here and below: an append on another connection does not.
        publisher.publish(event_at(0))
        wait_until_delivered(publisher, journal)
        journal.append(timed[:-1])
        watch = Watch()
        with watch.running():
            publisher.publish(event_at(1))
            wait_until_delivered(publisher, journal)
        check_books(journal, job.warm_up + 1 + job.count)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    main()
