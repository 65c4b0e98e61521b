"""
The store of runs: it takes reports in, and derives the rows of each run from the reports on it.

A report is stored in the transaction in which it was received. The rows of its run are derived afterwards, once for
all reports that have arrived in between, and its ends are added to the totals in the same transaction. Not here: the
tables (tables), the derivation (rows, counting), and reading (questions).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, select, update

from dkist_processing_core import semconv
from dkist_processing_core.collect import changes, tallies, totals
from dkist_processing_core.collect.counting import Increment, counted
from dkist_processing_core.collect.keys import digest_of, run_identity
from dkist_processing_core.collect.rows import RowsOfRun, rows_of
from dkist_processing_core.collect.signs import Key, Signs, signs_of
from dkist_processing_core.collect.tables import (
    ATTEMPTS,
    BUSES,
    IS_NEW,
    IS_SETTLING,
    LISTENING,
    MISSED_STARTS,
    REPORTS,
    RUNS,
    TALLIES,
    TASKS,
)
from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, WorkflowOverdue, decode, encode
from dkist_processing_core.identity.short_ids import characters_of
from dkist_processing_core.metrics.declarations import LAST_EVENT
from dkist_processing_core.runs import Alarm, Window, kept_reports, run_view

KEPT_SECONDS = 400 * 24 * 3600.0
"""How long a run is kept after its last report was received."""
LISTENING_KEPT_SECONDS = 8 * 24 * 3600.0
"""How long the spans are kept in which the store was complete: longer than the bus keeps events."""
ENDING = 8
_PART = 500
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Before:
    sign_received_at: float | None
    signs: dict[Key, Signs]


_OF_FOLD = (RUNS.c.number, RUNS.c.identity, RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.state)
_OF_SIGNS = ("task_name", "number", "sign_at", "sign_received_at", "clock_difference")


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
        waiting = connection.scalars(select(REPORTS.c.run).distinct().where(IS_NEW).limit(limit)).all()
        settled = select(RUNS.c.number).where(IS_SETTLING, RUNS.c.settles_at <= now).limit(limit)
        numbers = {*waiting, *connection.scalars(settled)}
        chosen = select(*_OF_FOLD).where(RUNS.c.number.in_(sorted(numbers)[:limit]))
        increments: list[Increment] = []
        tally: Counter[tallies.Tally] = Counter()
        runs = connection.execute(chosen.with_for_update(skip_locked=True)).all()
        for row in runs:
            increments += self._fold_run(connection, row.number, row.identity, now)
        states = dict(
            connection.execute(
                select(RUNS.c.number, RUNS.c.state).where(RUNS.c.number.in_([row.number for row in runs]))
            ).all()
        )
        for row in runs:
            names = (row.workflow_name, row.workflow_version)
            before, after = (None if state is None else (*names, state) for state in (row.state, states[row.number]))
            tally.update(tallies.changes_of(before, after))
        totals.add(connection, increments, now)
        tallies.add(connection, tally)
        changes.note_derived(connection, [row.number for row in runs])
        return len(runs)

    def _fold_run(self, connection: Connection, number: int, identity: bytes, now: float) -> list[Increment]:
        """Derive the rows of a run, and return what its ends add to the totals."""
        columns = (REPORTS.c.number, REPORTS.c.body, REPORTS.c.received_at, REPORTS.c.is_folded)
        stored = connection.execute(select(*columns).where(REPORTS.c.run == number)).all()
        by_number = {row.number: event for row in stored if (event := event_in(row.body)) is not None}
        kept = {id(event) for event in kept_reports(by_number.values())}
        replaced = [each for each, event in by_number.items() if id(event) not in kept]
        received_at = max(row.received_at for row in stored)
        reports = [event for event in by_number.values() if id(event) in kept]
        increments: list[Increment] = []
        if reports:
            moment = datetime.fromtimestamp(received_at, UTC)
            view = run_view(reports, received_at=moment)
            times = {row.number: row.received_at for row in stored}
            received = [(event, times[each]) for each, event in by_number.items() if id(event) in kept]
            before = self._run_before(connection, number)
            everything = ((event, times[each], id(event) in kept) for each, event in by_number.items())
            signs = signs_of(everything, Window.around(moment), before.signs)
            last_sign = max((at for event, at in received if not isinstance(event, Alarm)), default=None)
            found = counted(view, received, totals.marks_of(connection, identity), now)
            if found.is_changed:
                totals.store_marks(connection, identity, found.marks, now)
            increments = found.increments
            derived = {
                "received_at": received_at,
                "settles_at": found.next_at,
                "sign_received_at": max((at for at in (last_sign, before.sign_received_at) if at), default=None),
            }
            rows = rows_of(view, reports, moment, signs)
            self._write(connection, number, rows, derived)
            of_workflow = {semconv.PIPELINE_NAME: view.run.workflow_name}
            increments.append(Increment(LAST_EVENT, of_workflow, rows.run["last_sign_at"]))
        for each in in_parts(replaced):
            connection.execute(delete(REPORTS).where(REPORTS.c.number.in_(each)))
        for each in in_parts([row.number for row in stored if not row.is_folded]):
            connection.execute(update(REPORTS).where(REPORTS.c.number.in_(each)).values(is_folded=True))
        return increments

    def _run_before(self, connection: Connection, number: int) -> "_Before":
        """Return what the rows of a run know of reports that later ones have replaced."""
        known = select(*(ATTEMPTS.c[name] for name in _OF_SIGNS)).where(
            ATTEMPTS.c.run == number, ATTEMPTS.c.sign_received_at.is_not(None)
        )
        signs = {
            (row.task_name, row.number): Signs(row.sign_at, row.sign_received_at, row.clock_difference)
            for row in connection.execute(known)
        }
        return _Before(connection.scalar(select(RUNS.c.sign_received_at).where(RUNS.c.number == number)), signs)

    def _write(self, connection: Connection, number: int, rows: RowsOfRun, derived: dict[str, Any]) -> None:
        of_run = update(RUNS).where(RUNS.c.number == number)
        connection.execute(of_run.values(**rows.run, **derived))
        for table, found in ((TASKS, rows.tasks), (ATTEMPTS, rows.attempts)):
            connection.execute(delete(table).where(table.c.run == number))
            if found:
                connection.execute(table.insert(), [row | {"run": number} for row in found])

    def prune(self, connection: Connection, limit: int) -> int:
        """Delete at most `limit` runs whose last report was received more than 400 days ago; return their number."""
        old = select(*_OF_FOLD).where(RUNS.c.received_at < self._clock() - KEPT_SECONDS)
        runs = connection.execute(old.order_by(RUNS.c.received_at).limit(limit)).all()
        numbers = [row.number for row in runs]
        gone = Counter((row.workflow_name, row.workflow_version, row.state) for row in runs if row.state is not None)
        tallies.add(connection, {tally: -count for tally, count in gone.items()})
        if numbers:
            changes.note_deleted(connection)
        for table in (TASKS, ATTEMPTS, REPORTS):
            connection.execute(delete(table).where(table.c.run.in_(numbers)))
        connection.execute(delete(RUNS).where(RUNS.c.number.in_(numbers)))
        totals.prune_marks(connection, self._clock() - KEPT_SECONDS, limit)
        connection.execute(delete(MISSED_STARTS).where(MISSED_STARTS.c.received_at < self._clock() - KEPT_SECONDS))
        connection.execute(delete(LISTENING).where(LISTENING.c.until < self._clock() - LISTENING_KEPT_SECONDS))
        return len(numbers)

    def clear(self, connection: Connection) -> None:
        """Delete everything but the totals, and what was counted of each run: a counter does not fall."""
        for table in (TASKS, ATTEMPTS, REPORTS, RUNS, TALLIES, BUSES, MISSED_STARTS, LISTENING):
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


def event_in(body: bytes) -> Event | None:
    """Return the event of a stored report; None if a newer release has stored it and this one cannot read it."""
    try:
        return decode(body)
    except DecodeError:
        return None


_OF_RUN = ("workflow_name", "workflow_version", "run_id", "identity", "characters", "ending", "received_at")
_OF_REPORT = ("digest", "body", "received_at")


@cache
def _additions(dialect: str) -> tuple[Any, Any]:
    """
    Return the insertions of a run and of a report on it; each does nothing if the table has such a row.

    They are made once, since making a statement takes longer than executing it.
    """
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    number = select(RUNS.c.number).where(RUNS.c.identity == bindparam("identity")).scalar_subquery()
    of_report = {"run": number, "is_folded": False} | {name: bindparam(name) for name in _OF_REPORT}
    return (
        insert(RUNS).values({name: bindparam(name) for name in _OF_RUN}).on_conflict_do_nothing(),
        insert(REPORTS).values(of_report).on_conflict_do_nothing(),
    )


@cache
def _addition_of_missed_start(dialect: str) -> Any:
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    names = ("digest", "body", "expected_at", "received_at")
    return insert(MISSED_STARTS).values({name: bindparam(name) for name in names}).on_conflict_do_nothing()


def in_parts(values: list[_T]) -> Iterable[list[_T]]:
    """Yield the values in parts: a statement has a limited number of parameters."""
    return (values[first : first + _PART] for first in range(0, len(values), _PART))
