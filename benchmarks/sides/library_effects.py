"""The library's handlers: each event of a filled inbox writes a row, in the transaction that marks it as done."""

import time

from sqlalchemy import Connection, text

from benchmarks.sides.job import Job, report
from benchmarks.sides.library import settings_of
from dkist_processing_core import Consumer
from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer.service import ConsumerService, rules_of
from dkist_processing_core.events import Event, decode
from dkist_processing_core.inbox import Arrival, Database, Inbox

_EFFECT = text("INSERT INTO effect (event_id, workflow, run_id) VALUES (:event_id, :workflow, :run_id)")
_STORED = 1000


def main() -> None:
    """Handle the events of the inbox, `batch_size` in a transaction; report the time after the warm-up."""
    job = Job.read()
    settings = settings_of(job)
    consumer = Consumer("effects", inbox=job.options["inbox"], batch_size=job.options["batch_size"])
    calls = 0
    commits: list[tuple[float, int]] = []

    @consumer.on()
    def write(event: Event, transaction: Connection) -> None:
        nonlocal calls
        calls += 1
        values = {"event_id": event.id, "workflow": event.workflow_name, "run_id": event.run_id}
        transaction.execute(_EFFECT, values)

    def note(step: str) -> None:
        if step == "committed":
            commits.append((time.perf_counter(), calls))

    database = Database.open(consumer.inbox, settings)
    _fill(job, database, consumer)
    ConsumerService(consumer, open_bus(settings), database, steps=note).run(until_idle=True)
    began, first = next(commit for commit in commits if commit[1] >= job.warm_up)
    ended, last = commits[-1]
    if last != job.warm_up + job.count:
        msg = f"{job.warm_up + job.count} events were in the inbox, {last} were handled"
        raise RuntimeError(msg)
    report(seconds=ended - began, count=last - first)


def _fill(job: Job, database: Database, consumer: Consumer) -> None:
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE effect (event_id TEXT PRIMARY KEY, workflow TEXT, run_id TEXT)"))
    inbox = Inbox(database, rules_of(consumer))
    bodies = [message.body for part in job.prepared() for message in part]
    arrivals = [Arrival(decode(body), body, "application/cloudevents+json") for body in bodies]
    for begin in range(0, len(arrivals), _STORED):
        inbox.store(arrivals[begin : begin + _STORED])
    inbox.close()


if __name__ == "__main__":
    main()
