"""The library's consumer, which takes in the whole archive; each event writes a row in the transaction of its mark."""

import time

from sqlalchemy import Connection, text

from benchmarks.sides.job import Job, report
from benchmarks.sides.library import settings_of
from benchmarks.sides.library_outage import memory
from dkist_processing_core import Consumer
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database

BATCH = 100
# Without a constraint: a repeated effect is to be counted.
_TABLE = text("CREATE TABLE effect (event_id TEXT NOT NULL)")
_EFFECT = text("INSERT INTO effect (event_id) VALUES (:event_id)")
_COUNT = text("SELECT count(*), count(DISTINCT event_id) FROM effect")


def main() -> None:
    """Consume the archive until nothing is left; report time, memory, and the numbers of effects and of events."""
    job = Job.read()
    settings = settings_of(job)
    consumer = Consumer("replayed", inbox=job.options["inbox"], batch_size=BATCH, settings=settings)

    @consumer.on()
    def write(event: Event, transaction: Connection) -> None:
        transaction.execute(_EFFECT, {"event_id": event.id})

    database = Database.open(consumer.inbox, settings)
    with database.transaction() as connection:
        connection.execute(_TABLE)
    idle = memory()["VmHWM"]
    began = time.perf_counter()
    consumer.run(since="first", until_idle=True)
    seconds = time.perf_counter() - began
    peak = memory()["VmHWM"]
    with database.reading() as connection:
        effects, events = connection.execute(_COUNT).one()
    database.close()
    report(seconds=seconds, idle=idle, peak=peak, effects=effects, events=events)


if __name__ == "__main__":
    main()
