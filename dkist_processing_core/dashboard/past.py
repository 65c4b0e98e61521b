"""
The store as it was at a time of the past: a small one in memory, from the reports whose own time is not later.

A report counts at its own time, whenever it arrived: of a store that was built again, all reports arrived at once.
Samples are left out. Of progress and alarms the store keeps the latest alone, so that those are missing which a later
report has replaced. The reports on a few runs at a time are in memory, and of all runs only the rows. Not here: the
pages that show the past (pages).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import create_engine, delete
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import DETAILS, METADATA, PACKS, REPORTS
from dkist_processing_core.events import Event, TaskSampled

_AT_ONCE = 100
# Of decoded reports: in memory at one time, and of all runs, which takes some seconds.
_PART_BYTES, _MOST_BYTES = 8 * 1024 * 1024, 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Past:
    """The store as it was."""

    questions: Questions
    runs: int
    """The number of runs that were read."""
    is_cut: bool
    """Whether there were more."""
    unread: int
    """Of how many of them the reports cannot be read."""


def reports_until(reports: Iterable[Event], at: datetime) -> list[Event]:
    """Return the reports whose own time is not later than a time, without samples."""
    return [report for report in reports if report.time <= at and not isinstance(report, TaskSampled)]


@contextmanager
def as_of(questions: Questions, at: datetime, before: timedelta, most_runs: int) -> Iterator[Past]:
    """
    Yield the store as it was.

    Args:
        questions: The questions to the store of the present.
        at: The time of the past.
        before: How long before that a run may have ended.
        most_runs: The largest number of runs; those that went on then are taken before those that had ended. There are
            fewer of them if the reports on them are too large.
    """
    runs = questions.runs_between(at - before, at, most_runs + 1)
    parts = _parts(questions.decoded_sizes([run.number for run in runs[:most_runs]]))
    number, unread = sum(map(len, parts)), 0
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            METADATA.create_all(connection)
            store = Store(clock=at.timestamp)
            for part in parts:
                # The rows need no stack, no log and no profile.
                found = list(questions.reports_on_each(part))
                unread += found.count(None)
                store.add(connection, *(report for reports in found for report in reports_until(reports or (), at)))
                while store.fold(connection, _AT_ONCE):
                    pass
                for table in (REPORTS, PACKS, DETAILS):
                    connection.execute(delete(table))
            yield Past(Questions(connection), number, len(runs) > number, unread)
    finally:
        engine.dispose()


def _parts(sizes: Mapping[int, int]) -> list[list[int]]:
    """Return the first runs, as many as are not too large together, in parts; one run may be larger."""
    parts: list[list[int]] = []
    whole = of_part = 0
    for number, size in sizes.items():
        whole, of_part = whole + size, of_part + size
        if parts and whole > _MOST_BYTES:
            break
        if not parts or of_part > _PART_BYTES:
            parts.append([])
            of_part = size
        parts[-1].append(number)
    return parts
