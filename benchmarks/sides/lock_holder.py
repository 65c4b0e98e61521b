"""A process that holds the lock under which an outbox is drained, and does no other work."""

import sys

from benchmarks.sides.job import Job, report, wait_for_start
from benchmarks.sides.library import settings_of
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.locks import FileLock


def main() -> None:
    """Take the lock, report it, and hold it until requested to end."""
    job = Job.read()
    with open_bus(settings_of(job)).open_journal() as journal:
        if not FileLock(journal.path.with_suffix(".lock")).acquire():
            sys.exit("somebody else holds the lock")
        wait_for_start()
    report()


if __name__ == "__main__":
    main()
