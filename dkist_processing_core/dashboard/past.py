"""
The store as it was at a time of the past: a small one in memory, from the reports whose own time is not later.

A report counts at its own time, whenever it arrived: of a store that was built again, all reports arrived at once.
Samples are left out. Of progress and alarms the store keeps the latest alone, so that those are missing which a later
report has replaced. Not here: the pages that show the past (pages).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import METADATA
from dkist_processing_core.events import Event, TaskSampled

_AT_ONCE = 100


def reports_until(reports: Iterable[Event], at: datetime) -> list[Event]:
    """Return the reports whose own time is not later than a time, without samples."""
    return [report for report in reports if report.time <= at and not isinstance(report, TaskSampled)]


@contextmanager
def as_of(questions: Questions, at: datetime, before: timedelta, most_runs: int) -> Iterator[tuple[Questions, bool]]:
    """
    Yield the questions to the store as it was, and whether there were more runs than it has.

    Args:
        questions: The questions to the store of the present.
        at: The time of the past.
        before: How long before that a run may have ended.
        most_runs: The largest number of runs; those that went on then are taken before those that had ended.
    """
    runs = questions.runs_between(at - before, at, most_runs + 1)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            METADATA.create_all(connection)
            store = Store(clock=at.timestamp)
            # The rows need no stack, no log and no profile.
            for reports in questions.reports_on_each(run.number for run in runs[:most_runs]):
                store.add(connection, *reports_until(reports, at))
            while store.fold(connection, _AT_ONCE):
                pass
            yield Questions(connection), len(runs) > most_runs
    finally:
        engine.dispose()
