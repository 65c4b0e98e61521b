"""
The store of runs: it takes reports in, and derives the rows of each run from the reports on it.

A report is stored in the transaction in which it was received. The rows of its run are derived afterwards, once for
all reports that have arrived in between, and its ends are added to the totals in the same transaction. Not here: the
tables (tables), the derivation (rows, counting), and reading (questions).
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from dkist_processing_core.collect import arriving, changes, tallies, totals
from dkist_processing_core.collect.folded import Before, FoldedRun, folded_run
from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.reports import Merging, held, store
from dkist_processing_core.collect.signs import Key, Signs
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

KEPT_SECONDS = 400 * 24 * 3600.0
"""How long a run is kept after its last report was received."""
LISTENING_KEPT_SECONDS = 8 * 24 * 3600.0
"""How long the spans are kept in which the store was complete: longer than the bus keeps events."""


_OF_FOLD = (
    RUNS.c.number,
    RUNS.c.identity,
    RUNS.c.workflow_name,
    RUNS.c.workflow_version,
    RUNS.c.state,
    RUNS.c.sign_received_at,
)
_OF_SIGNS = ("run", "task_name", "number", "sign_at", "sign_received_at", "clock_difference")


class Store:
    """The runs in a database; each method works in the transaction of its caller."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Store the clock, which returns the time in seconds since 1970."""
        self._clock = clock

    def add(self, connection: Connection, *reports: Event) -> None:
        """Add reports, whose effect on the rows of their runs follows by `fold`; a repeated report has no effect."""
        now = self._clock()
        missed = [each for each in reports if isinstance(each, WorkflowOverdue) and each.is_missed_start]
        arriving.add(connection, [each for each in reports if each not in missed] if missed else reports, now)
        arriving.add_missed_starts(connection, missed, now)

    def fold(self, connection: Connection, limit: int) -> int:
        """
        Derive the rows of at most `limit` runs with new reports, and return their number.

        A run that another transaction is folding is left to it.
        """
        now = self._clock()
        waiting = connection.scalars(select(REPORTS.c.run).distinct().limit(limit)).all()
        settled = select(RUNS.c.number).where(IS_SETTLING, RUNS.c.settles_at <= now).limit(limit)
        due = sorted({*waiting, *connection.scalars(settled)})[:limit]
        chosen = select(*_OF_FOLD).where(RUNS.c.number.in_(due))
        runs = connection.execute(chosen.with_for_update(skip_locked=True)).all()
        numbers = [row.number for row in runs]
        stored, signs = held(connection, numbers), _signs_before(connection, numbers)
        marks = totals.marks_of(connection, [row.identity for row in runs])
        packings, folded, tally = {}, [], Counter[tallies.Tally]()
        for row in runs:
            merging = Merging(connection, row.number, stored[row.number])
            packings[row.number] = merging.packing()
            if merging.kept:
                before = Before(row.sign_received_at, signs[row.number], marks[row.identity])
                folded.append((row, found := folded_run(merging, before, now)))
                names = (row.workflow_name, row.workflow_version)
                former = None if row.state is None else (*names, row.state)
                tally.update(tallies.changes_of(former, (*names, found.rows.run["state"])))
        store(connection, packings)
        self._write(connection, [(row.number, found) for row, found in folded])
        totals.store_marks(connection, {row.identity: found.marks for row, found in folded if found.marks}, now)
        totals.add(connection, [each for _, found in folded for each in found.increments], now)
        tallies.add(connection, tally)
        return len(runs)

    def _write(self, connection: Connection, folded: Sequence[tuple[int, FoldedRun]]) -> None:
        """Write the rows of runs, with few statements for all of them."""
        if not folded:
            return
        numbers = [number for number, _ in folded]
        for table, rows in (
            (TASKS, [row | {"run": number} for number, found in folded for row in found.rows.tasks]),
            (ATTEMPTS, [row | {"run": number} for number, found in folded for row in found.rows.attempts]),
        ):
            for part in in_parts(numbers):
                connection.execute(delete(table).where(table.c.run.in_(part)))
            if rows:
                connection.execute(table.insert(), rows)
        first = changes.next_revisions(connection, len(folded))
        values = [
            found.rows.run | found.derived | {"of_run": number, "revision": first + place}
            for place, (number, found) in enumerate(folded)
        ]
        names: dict[str, Any] = {name: bindparam(name) for name in values[0] if name != "of_run"}
        connection.execute(update(RUNS).where(RUNS.c.number == bindparam("of_run")).values(names), values)

    def prune(self, connection: Connection, limit: int) -> int:
        """Delete at most `limit` runs whose last report was received more than 400 days ago; return their number."""
        old = select(*_OF_FOLD).where(RUNS.c.received_at < self._clock() - KEPT_SECONDS)
        runs = connection.execute(old.order_by(RUNS.c.received_at).limit(limit)).all()
        numbers = [row.number for row in runs]
        gone = Counter((row.workflow_name, row.workflow_version, row.state) for row in runs if row.state is not None)
        tallies.add(connection, {tally: -count for tally, count in gone.items()})
        if numbers:
            changes.note_deleted(connection)
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
        changes.note_deleted(connection)

    def note_complete(self, connection: Connection, bus: str) -> None:
        """Note that the store has all reports that a bus had a moment ago."""
        connection.execute(delete(BUSES).where(BUSES.c.name == bus))
        connection.execute(BUSES.insert().values(name=bus, completed_at=self._clock()))

    def completed_at(self, connection: Connection, bus: str) -> datetime | None:
        """Return when the store last had all reports of a bus; None if it never had."""
        seconds = connection.scalar(select(BUSES.c.completed_at).where(BUSES.c.name == bus))
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _signs_before(connection: Connection, numbers: Sequence[int]) -> dict[int, dict[Key, Signs]]:
    """Return what the rows of runs know of reports that later ones have replaced."""
    found: dict[int, dict[Key, Signs]] = {number: {} for number in numbers}
    known = select(ATTEMPTS.c.run, *(ATTEMPTS.c[name] for name in _OF_SIGNS)).where(
        ATTEMPTS.c.sign_received_at.is_not(None)
    )
    for part in in_parts(numbers):
        for row in connection.execute(known.where(ATTEMPTS.c.run.in_(part))):
            signs = Signs(row.sign_at, row.sign_received_at, row.clock_difference)
            found[row.run][row.task_name, row.number] = signs
    return found
