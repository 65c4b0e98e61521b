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
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from dkist_processing_core.collect import changes, tallies, totals
from dkist_processing_core.collect.folded import Before, FoldedRun, folded_run
from dkist_processing_core.collect.keys import digest_of, run_identity
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
from dkist_processing_core.events import Event, WorkflowOverdue, encode
from dkist_processing_core.identity.short_ids import characters_of

KEPT_SECONDS = 400 * 24 * 3600.0
"""How long a run is kept after its last report was received."""
LISTENING_KEPT_SECONDS = 8 * 24 * 3600.0
"""How long the spans are kept in which the store was complete: longer than the bus keeps events."""
ENDING = 8


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

    def add(self, connection: Connection, report: Event) -> None:
        """Add a report, whose effect on the rows of its run follows by `fold`; a repeated report has no effect."""
        body, now = encode(report), self._clock()
        if isinstance(report, WorkflowOverdue) and report.is_missed_start:
            if report.expected_at is not None:
                missed = {"digest": digest_of(body), "expected_at": report.expected_at.timestamp()}
                add_missed = _addition_of_missed_start(connection.dialect.name)
                connection.execute(add_missed, missed | {"body": body, "received_at": now})
            return
        characters = characters_of(report.run_id).lower()
        values = {
            "workflow_name": report.workflow_name,
            "workflow_version": report.workflow_version,
            "run_id": report.run_id,
            "identity": run_identity(report.workflow_name, report.workflow_version, report.run_id),
            "characters": characters,
            "ending": characters[-ENDING:],
            "digest": digest_of(body),
            "body": body,
            "received_at": now,
            "first_received_at": now,
        }
        add_run, add_report = _additions(connection.dialect.name)
        connection.execute(add_run, values)
        connection.execute(add_report, values)

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


_OF_RUN = (
    "workflow_name",
    "workflow_version",
    "run_id",
    "identity",
    "characters",
    "ending",
    "received_at",
    "first_received_at",
)
_OF_REPORT = ("digest", "body", "received_at")


@cache
def _additions(dialect: str) -> tuple[Any, Any]:
    """
    Return the insertions of a run and of a report on it; each does nothing if the table has such a row.

    They are made once, since making a statement takes longer than executing it.
    """
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    number = select(RUNS.c.number).where(RUNS.c.identity == bindparam("identity")).scalar_subquery()
    of_report: dict[str, Any] = {"run": number} | {name: bindparam(name) for name in _OF_REPORT}
    return (
        insert(RUNS).values({name: bindparam(name) for name in _OF_RUN}).on_conflict_do_nothing(),
        insert(REPORTS).values(of_report).on_conflict_do_nothing(),
    )


@cache
def _addition_of_missed_start(dialect: str) -> Any:
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    names = ("digest", "body", "expected_at", "received_at")
    return insert(MISSED_STARTS).values({name: bindparam(name) for name in names}).on_conflict_do_nothing()
