"""
The store of runs: it takes reports in, and derives the rows of each run from the reports on it.

A report is stored in the transaction in which it was received. The rows of its run are derived afterwards, once for
all reports that have arrived in between, and its ends are added to the totals in the same transaction. Not here: the
tables (tables), the derivation (folding), and reading (questions).
"""

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, bindparam, delete, select, update

from dkist_processing_core.collect import revisions
from dkist_processing_core.collect.folding import tallies, totals
from dkist_processing_core.collect.folding.folded import Before, FoldedRun, folded_run
from dkist_processing_core.collect.folding.signs import Key, Signs
from dkist_processing_core.collect.parts import among
from dkist_processing_core.collect.reports import arriving
from dkist_processing_core.collect.reports.decoding import DecodedReports
from dkist_processing_core.collect.reports.stored import Merging, Packing, decoded_sizes, held, store
from dkist_processing_core.collect.reports.waiting import first_runs
from dkist_processing_core.collect.tables import (
    ATTEMPTS,
    BUSES,
    DETAILS,
    IS_SETTLING,
    LISTENING,
    MISSED_STARTS,
    PACKS,
    REPORTS,
    RUNS,
    TALLIES,
    TASKS,
)
from dkist_processing_core.events import Event, WorkflowOverdue
from dkist_processing_core.inbox import bulk

KEPT_SECONDS = 400 * 24 * 3600.0
"""How long a run is kept after its last report was received."""
LISTENING_KEPT_SECONDS = 8 * 24 * 3600.0
"""How long the spans are kept in which the store was complete: longer than the bus keeps events."""
# Of the decoded reports that a fold has in memory at one time: of 100 runs with 400 reports each.
_MOST_BYTES = 64 * 1024 * 1024
logger = logging.getLogger("dkist_processing_core.collect")

_OF_FOLD = (
    RUNS.c.number,
    RUNS.c.identity,
    RUNS.c.workflow_name,
    RUNS.c.workflow_version,
    RUNS.c.run_id,
    RUNS.c.state,
    RUNS.c.sign_received_at,
    RUNS.c.revision,
)
_OF_SIGNS = ("run", "task_name", "number", "sign_at", "sign_received_at", "clock_difference")


class Store:
    """The runs in a database; each method works in the transaction of its caller."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Store the clock, which returns the time in seconds since 1970."""
        self._clock = clock
        self.left_out: set[int] = set()
        """The runs whose reports could not be read, so that this process does not derive them again."""
        self._decoded = DecodedReports()

    def add(self, connection: Connection, *reports: Event) -> None:
        """Add reports, whose effect on the rows of their runs follows by `fold`; a repeated one changes no row."""
        now = self._clock()
        missed = [each for each in reports if isinstance(each, WorkflowOverdue) and each.is_missed_start]
        arriving.add(
            connection, [each for each in reports if each not in missed] if missed else reports, now, self._decoded
        )
        arriving.add_missed_starts(connection, missed, now)

    def fold(self, connection: Connection, limit: int) -> int:
        """Derive and write the rows of runs in one transaction, and return how many were tried; 0 if none is due."""
        derived = self.derive(connection, limit)
        self.write(connection, derived)
        return derived.tried

    def derive(self, connection: Connection, limit: int, *, shortest_wait: float = 0.0) -> "Derived":
        """
        Derive the rows of at most `limit` runs with new reports, those that arrived first.

        It only reads, so that no writer has to wait meanwhile. A run is left to a later fold if each of its new reports
        has waited for less than `shortest_wait` seconds. One whose reports cannot be read is left out from then on,
        with a warning: its rows stay as they are, and its reports are kept.
        """
        now = self._clock()
        waiting = first_runs(connection, limit + 1, self.left_out, now, shortest_wait=shortest_wait)
        settled = select(RUNS.c.number).where(IS_SETTLING, RUNS.c.settles_at <= now).limit(limit + 1)
        due = [run for run in dict.fromkeys((*waiting, *connection.scalars(settled))) if run not in self.left_out]
        query: Select[Any] = select(*_OF_FOLD).where(RUNS.c.number.in_(due[:limit]))
        chosen = {row.number: row for row in connection.execute(query)}
        runs = [chosen[number] for number in due[:limit] if number in chosen]
        fitting = _fitting(runs, decoded_sizes(connection, [row.number for row in runs]))
        with _without_collections():
            found = self._derived(connection, fitting, now)
        return Derived(found, now, len(fitting), is_all=len(due) <= limit and len(fitting) == len(runs))

    def _derived(self, connection: Connection, runs: Sequence[Row[Any]], now: float) -> list["_DerivedRun"]:
        """Return what is to be written of runs whose reports are in memory at one time."""
        numbers = [row.number for row in runs]
        stored, signs = held(connection, numbers), _signs_before(connection, numbers)
        marks = totals.marks_of(connection, [row.identity for row in runs])
        derived = []
        for row in runs:
            try:
                merging = Merging(connection, row.number, stored[row.number], self._decoded)
                before = Before(row.sign_received_at, signs[row.number], marks[row.identity])
                found = folded_run(merging, before, now) if merging.kept else None
            except ValueError as error:
                self.left_out.add(row.number)
                logger.warning("the run %s of %s is not derived again: %s", row.run_id, row.workflow_name, error)
                continue
            derived.append(_DerivedRun(row, merging.packing(), found))
        return derived

    def write(self, connection: Connection, derived: "Derived") -> int:
        """
        Write what was derived of runs, and return the number of those that are written.

        A run that another transaction has written since then, or is writing, is left to the next fold.
        """
        numbers = [each.row.number for each in derived.runs]
        # Reports may be added meanwhile, whose rows refer to the run.
        known = select(RUNS.c.number, RUNS.c.identity, RUNS.c.revision).where(RUNS.c.number.in_(numbers))
        current = set(map(tuple, connection.execute(known.with_for_update(skip_locked=True, key_share=True))))
        runs = [each for each in derived.runs if (each.row.number, each.row.identity, each.row.revision) in current]
        folded = [(each.row, each.found) for each in runs if each.found is not None]
        with _without_collections():
            store(connection, {each.row.number: each.packing for each in runs})
            self._write(connection, [(row.number, found) for row, found in folded])
            if unread := [each.row.number for each in runs if each.found is None]:
                # The packed reports have changed, which other processes have to notice.
                values = {"revision": revisions.next_revisions(connection, 1)}
                connection.execute(update(RUNS).where(RUNS.c.number.in_(unread)).values(values))
            marks = {row.identity: found.marks for row, found in folded if found.marks}
            totals.store_marks(connection, marks, derived.at)
            # Rows that several runs share are locked last.
            totals.add(connection, [each for _, found in folded for each in found.increments], derived.at)
        tally: Counter[tallies.Tally] = Counter()
        for row, found in folded:
            names = (row.workflow_name, row.workflow_version)
            former = None if row.state is None else (*names, row.state)
            tally.update(tallies.changes_of(former, (*names, found.rows.run["state"])))
        tallies.add(connection, tally)
        return len(runs)

    def _write(self, connection: Connection, folded: Sequence[tuple[int, FoldedRun]]) -> None:
        """Write the rows of runs, with few statements for all of them."""
        if not folded:
            return
        numbers = [number for number, _ in folded]
        for table, rows in (
            (TASKS, [(number, row) for number, found in folded for row in found.rows.tasks]),
            (ATTEMPTS, [(number, row) for number, found in folded for row in found.rows.attempts]),
        ):
            for is_of_them in among(connection, table.c.run, numbers):
                connection.execute(delete(table).where(is_of_them))
            if rows:
                columns = ("run", *rows[0][1])
                bulk.insert(connection, table, columns, [(number, *row.values()) for number, row in rows])
        first = revisions.next_revisions(connection, len(folded))
        values = [
            found.rows.run | found.derived | {"of_run": number, "revision": first + place}
            for place, (number, found) in enumerate(folded)
        ]
        names: dict[str, Any] = {name: bindparam(name) for name in values[0] if name != "of_run"}
        connection.execute(update(RUNS).where(RUNS.c.number == bindparam("of_run")).values(names), values)

    def prune(self, connection: Connection, limit: int) -> int:
        """Delete at most `limit` runs whose last report was received more than 400 days ago; return their number."""
        old = select(*_OF_FOLD).where(RUNS.c.received_at < self._clock() - KEPT_SECONDS)
        old = old.order_by(RUNS.c.received_at).limit(limit)
        # Rows are locked in the order of a fold: runs, the revision, the tallies.
        runs = connection.execute(old.with_for_update(skip_locked=True)).all()
        numbers = [row.number for row in runs]
        gone = Counter((row.workflow_name, row.workflow_version, row.state) for row in runs if row.state is not None)
        if numbers:
            revisions.note_deleted(connection)
        tallies.add(connection, {tally: -count for tally, count in gone.items()})
        for table in (TASKS, ATTEMPTS, REPORTS, PACKS, DETAILS):
            connection.execute(delete(table).where(table.c.run.in_(numbers)))
        connection.execute(delete(RUNS).where(RUNS.c.number.in_(numbers)))
        totals.prune_marks(connection, self._clock() - KEPT_SECONDS, limit)
        connection.execute(delete(MISSED_STARTS).where(MISSED_STARTS.c.received_at < self._clock() - KEPT_SECONDS))
        connection.execute(delete(LISTENING).where(LISTENING.c.until < self._clock() - LISTENING_KEPT_SECONDS))
        return len(numbers)

    def clear(self, connection: Connection) -> None:
        """Delete everything but the totals, and what was counted of each run: a counter does not fall."""
        for table in (TASKS, ATTEMPTS, REPORTS, PACKS, DETAILS, RUNS, TALLIES, BUSES, MISSED_STARTS, LISTENING):
            connection.execute(delete(table))
        # Another run may get the number of one of them.
        self.left_out.clear()
        revisions.note_deleted(connection)

    def note_complete(self, connection: Connection, bus: str) -> None:
        """Note that the store has all reports that a bus had a moment ago."""
        connection.execute(delete(BUSES).where(BUSES.c.name == bus))
        connection.execute(BUSES.insert().values(name=bus, completed_at=self._clock()))

    def completed_at(self, connection: Connection, bus: str) -> datetime | None:
        """Return when the store last had all reports of a bus; None if it never had."""
        seconds = connection.scalar(select(BUSES.c.completed_at).where(BUSES.c.name == bus))
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class _DerivedRun(NamedTuple):
    row: Row[Any]
    """Its row as it was when its reports were read."""
    packing: Packing
    found: FoldedRun | None
    """None if this release can read none of its reports."""


class Derived(NamedTuple):
    """What was derived of runs, for `Store.write`."""

    runs: list[_DerivedRun]
    at: float
    """When, in seconds since 1970."""
    tried: int
    """The number of runs, with those that could not be derived."""
    is_all: bool
    """Whether no other run was due."""


@contextmanager
def _without_collections() -> Iterator[None]:
    """
    Pause the collection of cycles, in all threads of this process.

    A fold makes many objects and hardly a cycle, and each collection would visit all these objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _fitting(runs: list[Row[Any]], sizes: Mapping[int, int]) -> list[Row[Any]]:
    """Return the first runs, as many as have reports that fit in memory; one may be larger."""
    size = 0
    for place, row in enumerate(runs):
        size += sizes[row.number]
        if place and size > _MOST_BYTES:
            return runs[:place]
    return runs


def _signs_before(connection: Connection, numbers: Sequence[int]) -> dict[int, dict[Key, Signs]]:
    """Return what the rows of runs know of reports that later ones have replaced."""
    found: dict[int, dict[Key, Signs]] = {number: {} for number in numbers}
    known = select(ATTEMPTS.c.run, *(ATTEMPTS.c[name] for name in _OF_SIGNS)).where(
        ATTEMPTS.c.sign_received_at.is_not(None)
    )
    for is_of_them in among(connection, ATTEMPTS.c.run, numbers):
        for row in connection.execute(known.where(is_of_them)):
            signs = Signs(row.sign_at, row.sign_received_at, row.clock_difference)
            found[row.run][row.task_name, row.number] = signs
    return found
