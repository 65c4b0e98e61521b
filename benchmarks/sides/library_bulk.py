"""
The library publishing in bulk: a batch is synced to disk when `publish` returns, and all messages are confirmed at the
end.
"""

from benchmarks.corpus import event_at
from benchmarks.sides.job import Job, Watch, report
from benchmarks.sides.library import check_books, settings_of, to_messages, wait_until_delivered
from dkist_processing_core.bus import open_bus
from dkist_processing_core.delivery.publisher import Publisher


def main() -> None:
    """Publish the job's events, or messages that were encoded before the clock started."""
    job = Job.read()
    batch: int = job.options["batch"]
    settings = settings_of(job)
    watch = Watch()
    with open_bus(settings).open_journal() as journal, Publisher.open(settings) as publisher:
        publisher.publish(*map(event_at, range(job.warm_up)))
        wait_until_delivered(publisher, journal)
        if job.options["encoded"]:
            # The first and the last are events, which wake the drainer: another connection's messages do not.
            messages = to_messages(job.prepared()[1], job.exchange)[2:]
            with watch.running():
                publisher.publish(event_at(job.warm_up))
                for begin in range(0, len(messages), batch):
                    journal.append(messages[begin : begin + batch])
                publisher.publish(event_at(job.warm_up + 1))
                wait_until_delivered(publisher, journal)
        else:
            size: int = job.options["size"]
            events = [event_at(job.warm_up + number, size) for number in range(job.count)]
            with watch.running():
                for begin in range(0, len(events), batch):
                    publisher.publish(*events[begin : begin + batch])
                wait_until_delivered(publisher, journal)
        check_books(journal, job.warm_up + job.count)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    main()
