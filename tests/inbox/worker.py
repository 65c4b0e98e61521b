"""
A process that stores and handles rows of an inbox until it is killed, as `python -m tests.inbox.worker`.

Not here: the kills (test_kills).
"""

import sys
import time

from sqlalchemy import text

from dkist_processing_core.inbox import Database, Inbox, Rules
from dkist_processing_core.settings.reading import read_settings
from tests.facts import progressed
from tests.inbox.parts import arrival

RUNS, ROWS = 4, 200


def main(url: str) -> None:
    """
    Work until all rows are handled. One process stores the arrivals, and takes over if that one ends.
    """
    database = Database.open(url or None, read_settings())
    inbox = Inbox(database, Rules("killed", ordered=True, max_starts=1000))
    arrivals = [arrival(progressed("T", number, run_id=str(number % RUNS))) for number in range(ROWS)]
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    while True:
        if inbox.become_intake():
            # Each process that takes over receives everything again.
            for start in range(0, ROWS, 10):
                inbox.store(arrivals[start : start + 10])
        rows = inbox.claim(7)
        for row in rows:
            with inbox.handling([row]) as transaction:
                transaction.execute(
                    text("INSERT INTO killed_effect (run, number) VALUES (:run, :number)"),
                    {"run": row.event.run_id, "number": int(row.event.number)},
                )
        counts = inbox.counts()
        if not rows and not counts.waiting and not counts.claimed and inbox.become_claimer():
            return
        if not rows:
            # The database reports no change: a real consumer also looks again after a pause.
            time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
