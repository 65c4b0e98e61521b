"""
The questions that the store answers: which runs there were, what runs now, what failed, and how often.

Not here: the answers (answers), their words and drawings (cli), and keeping the store up to date (collector).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, or_, select

from dkist_processing_core.collect.answers import Choice, Family, StoredAttempt, StoredRun, Usage, WholeFamily
from dkist_processing_core.collect.families import Condition, first_failure, recipe_runs
from dkist_processing_core.collect.folding import event_in, in_parts
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, IS_NEW, IS_OPEN, REPORTS, RUNS, TASKS
from dkist_processing_core.collect.usage import usages
from dkist_processing_core.collect.watched import alarm_in, alarms_in
from dkist_processing_core.consumer import matches
from dkist_processing_core.events import Event, TaskFailed
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.short_ids import ShortIds, characters_of, one_named_run
from dkist_processing_core.runs import State, standing


class Questions:
    """The questions to a store, answered within the transaction of a connection."""

    def __init__(self, connection: Connection) -> None:
        """Store the connection."""
        self._connection = connection

    def revision(self) -> object:
        """Return a value that differs after each change of the answers."""
        news = select(func.count()).select_from(REPORTS).where(IS_NEW)
        return self._connection.execute(select(func.max(RUNS.c.received_at), news.scalar_subquery())).one()

    def runs(self, choice: Choice, limit: int | None = None) -> list[StoredRun]:
        """Return the chosen runs, the one with the latest report first."""
        query = select(RUNS).where(*self._of_runs(choice)).order_by(RUNS.c.last_sign_at.desc(), RUNS.c.number.desc())
        return self._runs(query.limit(limit))

    def idle_runs(self, choice: Choice, *, silent_since: datetime | None = None) -> list[StoredRun]:
        """
        Return the runs without an end and without an open attempt, the one with the oldest report first.

        Args:
            choice: The choice.
            silent_since: Only those without a report since this time.
        """
        is_open = select(ATTEMPTS.c.run).where(ATTEMPTS.c.run == RUNS.c.number, IS_OPEN)
        query = select(RUNS).where(*self._of_runs(choice), RUNS.c.state == State.RUNNING, ~exists(is_open))
        if silent_since is not None:
            query = query.where(RUNS.c.last_sign_at < silent_since.timestamp())
        return self._runs(query.order_by(RUNS.c.last_sign_at, RUNS.c.number))

    def _runs(self, query: Select[Any]) -> list[StoredRun]:
        """Return the runs of a query with the states of their tasks and their failures."""
        rows = self._connection.execute(query).all()
        numbers = [row.number for row in rows]
        tasks: dict[int, dict[State, int]] = defaultdict(dict)
        failures: dict[int, list[StoredAttempt]] = defaultdict(list)
        for part in in_parts(numbers):
            tally = select(TASKS.c.run, TASKS.c.state, func.count()).where(TASKS.c.run.in_(part))
            for number, state, count in self._connection.execute(tally.group_by(TASKS.c.run, TASKS.c.state)):
                tasks[number][State(state)] = count
            failed = _ATTEMPTS.where(ATTEMPTS.c.run.in_(part), ATTEMPTS.c.is_last, HAS_FAILED)
            for row in self._connection.execute(failed.order_by(ATTEMPTS.c.run, ATTEMPTS.c.place)):
                failures[row.run].append(_attempt(row))
        return [_run(row, tasks[row.number], failures[row.number]) for row in rows]

    def states(self, choice: Choice) -> dict[State, int]:
        """Return the number of the chosen runs in each state."""
        query = select(RUNS.c.state, func.count()).where(*self._of_runs(choice)).group_by(RUNS.c.state)
        found = {State(state): count for state, count in self._connection.execute(query)}
        return {state: found[state] for state in State if state in found}

    def open_attempts(self, choice: Choice, *, silent_since: datetime | None = None) -> list[StoredAttempt]:
        """
        Return the attempts without an end, oldest first.

        Args:
            choice: The choice.
            silent_since: Only those without a report since this time.
        """
        query = _ATTEMPTS.where(IS_OPEN, RUNS.c.state == State.RUNNING)
        query = query.where(*self._of_identity(choice))
        sign = func.coalesce(ATTEMPTS.c.last_sign_at, RUNS.c.last_sign_at)
        if choice.since is not None:
            query = query.where(sign >= choice.since.timestamp())
        if silent_since is not None:
            query = query.where(sign < silent_since.timestamp())
        if choice.states:
            query = query.where(ATTEMPTS.c.state.in_(choice.states))
        began = func.coalesce(ATTEMPTS.c.dispatched_at, ATTEMPTS.c.started_at, sign)
        rows = self._connection.execute(query.order_by(began, ATTEMPTS.c.run, ATTEMPTS.c.place))
        return [_attempt(row) for row in rows]

    def families(self, choice: Choice, limit: int | None = None) -> list[Family]:
        """Return the families of the chosen failures, the one that occurred last first."""
        chosen = self._of_failures(choice)
        is_recent = ATTEMPTS.c.failed_at >= (0.0 if choice.since is None else choice.since.timestamp())
        recent = func.sum(case((is_recent, 1), else_=0))
        last = func.max(ATTEMPTS.c.failed_at)
        joined = ATTEMPTS.join(RUNS)
        grouped = select(ATTEMPTS.c.family, func.count(), recent, func.min(ATTEMPTS.c.failed_at), last)
        grouped = grouped.select_from(joined).where(*chosen).group_by(ATTEMPTS.c.family).having(recent > 0)
        found = {}
        for family, total, count, first_at, last_at in self._connection.execute(
            grouped.order_by(last.desc(), ATTEMPTS.c.family).limit(limit)
        ):
            latest = _ATTEMPTS.where(*chosen, ATTEMPTS.c.family == family).order_by(*_LATEST)
            attempt = _attempt(self._connection.execute(latest.limit(1)).one())
            found[family] = Family(family, int(count), total, _moment(first_at), _moment(last_at), attempt)
        for part in in_parts(list(found)):
            self._complete(found, [*chosen, is_recent, ATTEMPTS.c.family.in_(part)])
        for name, each in found.items():
            each.first = first_failure(self._connection, name)
        return list(found.values())

    def _complete(self, found: dict[str, Family], chosen: list[Condition]) -> None:
        """Add where the failures of families occurred."""
        columns = (ATTEMPTS.c.family, RUNS.c.workflow_name, RUNS.c.workflow_version, ATTEMPTS.c.task_name)
        final = func.sum(case((_IS_FINAL, 1), else_=0))
        query = select(*columns, final, func.count(ATTEMPTS.c.run.distinct())).select_from(ATTEMPTS.join(RUNS))
        for family, workflow, version, task, ended, runs in self._connection.execute(
            query.where(*chosen).group_by(*columns).order_by(*columns)
        ):
            each = found[family]
            each.final += int(ended)
            each.runs += runs
            if version not in each.workflows[workflow]:
                each.workflows[workflow].append(version)
            if task not in each.tasks:
                each.tasks.append(task)
        for family, count in recipe_runs(self._connection, chosen).items():
            found[family].recipe_runs = count

    def usages(self, choice: Choice) -> tuple[list[Usage], list[Usage]]:
        """Return what each task of a choice, and each queue of these tasks, has used."""
        return usages(self._connection, choice)

    def families_named(self, beginning: str) -> list[str]:
        """Return the ids of the families that begin with a text, in any case."""
        is_named = func.lower(ATTEMPTS.c.family).startswith(beginning.lower(), autoescape=True)
        query = select(ATTEMPTS.c.family).distinct().where(HAS_FAILED, is_named).order_by(ATTEMPTS.c.family)
        return list(self._connection.scalars(query))

    def family(self, choice: Choice, limit: int | None = None) -> WholeFamily | None:
        """Return the family of a choice with at most `limit` of its failures; None if none of them is chosen."""
        found = self.families(choice)
        if not found:
            return None
        chosen = self._of_failures(choice)
        if choice.since is not None:
            chosen.append(ATTEMPTS.c.failed_at >= choice.since.timestamp())
        rows = self._connection.execute(_ATTEMPTS.where(*chosen).order_by(*_LATEST).limit(limit)).all()
        (family,), (last, *_) = found, rows
        return WholeFamily(
            family, [_attempt(row) for row in rows], self._stack(last.run, family.last), self._finished_since(family)
        )

    def _stack(self, number: int, failure: StoredAttempt) -> str | None:
        """Return the stack of the exception of a failed attempt of a run; None if no report has it."""
        key = (failure.task_name, failure.number)
        failures = (report for report in self.reports(number) if isinstance(report, TaskFailed))
        return next((each.stack for each in failures if (each.task_name, each.attempt) == key and each.stack), None)

    def _finished_since(self, family: Family) -> int:
        query = select(func.count()).select_from(ATTEMPTS.join(RUNS))
        of_tasks = (ATTEMPTS.c.task_name.in_(family.tasks), RUNS.c.workflow_name.in_(family.workflows))
        has_finished = (ATTEMPTS.c.state == State.FINISHED, ATTEMPTS.c.ended_at > family.last_at.timestamp())
        return self._connection.scalar(query.where(*of_tasks, *has_finished)) or 0

    def run_number(self, named: str, *, workflow: str | None = None) -> int | None:
        """
        Return the number of the run that a person's text names; None if it names none.

        Raises:
            IdentityError: The text names several runs; the message lists them.
        """
        characters = characters_of(named).lower()
        is_named = RUNS.c.characters.contains(characters, autoescape=True) if characters else RUNS.c.run_id == named
        query = select(RUNS).where(or_(RUNS.c.run_id == named, is_named), *self._of_identity(Choice(workflow=workflow)))
        rows = {_identity(row): row.number for row in self._connection.execute(query.order_by(RUNS.c.number))}
        run = one_named_run(named, rows)
        # Another version of the workflow may have a run of the same id; the newest is meant.
        return None if run is None else rows[run]

    def reports(self, number: int) -> list[Event]:
        """Return the stored reports on a run, each with the time at which it was received."""
        query = select(REPORTS.c.body, REPORTS.c.received_at).where(REPORTS.c.run == number).order_by(REPORTS.c.number)
        return [
            event.with_acknowledgement(lambda: None, _moment(row.received_at))
            for row in self._connection.execute(query)
            if (event := event_in(row.body)) is not None
        ]

    def short_ids(self, run_ids: Iterable[str]) -> ShortIds:
        """Return the short ids of these runs, which no other run in the store has."""
        endings = sorted({characters_of(run_id)[-8:].lower() for run_id in run_ids})
        found: list[str] = []
        for part in in_parts(endings):
            found += self._connection.scalars(select(RUNS.c.run_id).where(RUNS.c.ending.in_(part)))
        return ShortIds(found)

    def _of_runs(self, choice: Choice) -> list[ColumnElement[bool]]:
        conditions = [*self._of_identity(choice), RUNS.c.state.is_not(None)]
        if choice.since is not None:
            conditions.append(RUNS.c.last_sign_at >= choice.since.timestamp())
        if choice.states:
            conditions.append(RUNS.c.state.in_(choice.states))
        if choice.cause is not None:
            has_cause = select(ATTEMPTS.c.run).where(ATTEMPTS.c.run == RUNS.c.number, ATTEMPTS.c.cause == choice.cause)
            conditions.append(exists(has_cause))
        return conditions

    def _of_failures(self, choice: Choice) -> list[Condition]:
        conditions: list[Condition] = [*self._of_identity(choice), HAS_FAILED]
        if choice.cause is not None:
            conditions.append(ATTEMPTS.c.cause == choice.cause)
        if choice.family is not None:
            conditions.append(ATTEMPTS.c.family == choice.family)
        return conditions

    def _of_identity(self, choice: Choice) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if choice.workflow is not None:
            names = self._connection.scalars(select(RUNS.c.workflow_name).distinct())
            conditions.append(RUNS.c.workflow_name.in_([name for name in names if matches(choice.workflow, name)]))
        if choice.version is not None:
            conditions.append(RUNS.c.workflow_version == choice.version)
        if choice.recipe_run_id is not None:
            conditions.append(RUNS.c.recipe_run_id == choice.recipe_run_id)
        return conditions


# In a run that goes on, another attempt follows as long as there are any left.
_IS_FINAL = and_(
    ATTEMPTS.c.is_last.is_(True),
    or_(
        RUNS.c.state != State.RUNNING,
        ATTEMPTS.c.number.is_(None),
        ATTEMPTS.c.max_attempts.is_(None),
        ATTEMPTS.c.number >= ATTEMPTS.c.max_attempts,
    ),
)
_ATTEMPTS = select(
    ATTEMPTS,
    _IS_FINAL.label("is_final"),
    RUNS.c.workflow_name,
    RUNS.c.workflow_version,
    RUNS.c.run_id,
    RUNS.c.recipe_run_id,
).select_from(ATTEMPTS.join(RUNS))
_LATEST = (ATTEMPTS.c.failed_at.desc(), ATTEMPTS.c.run.desc(), ATTEMPTS.c.place.desc())
_TIMES = ("dispatched_at", "started_at", "ended_at", "last_sign_at", "failed_at")
_PLAIN = (
    "task_name",
    "number",
    "max_attempts",
    "is_final",
    "duration_seconds",
    "host",
    "done",
    "total",
    "unit",
    "note",
)
_OF_FAILURE = ("cause", "family", "summary", "log_url")


def _attempt(row: Row[Any]) -> StoredAttempt:
    values = row._mapping  # noqa: SLF001 - this is how SQLAlchemy names it, since a column could have any name
    facts: dict[str, Any] = {name: values[name] for name in (*_PLAIN, *_OF_FAILURE)}
    facts |= {name: None if values[name] is None else _moment(values[name]) for name in _TIMES}
    overdue = standing(alarms_in(row.alarms)) if row.is_open else None
    return StoredAttempt(run=_identity(row), state=State(row.state), overdue=overdue, **facts)


def _run(row: Row[Any], tasks: dict[State, int], failures: Sequence[StoredAttempt]) -> StoredRun:
    return StoredRun(
        number=row.number,
        run=_identity(row),
        state=State(row.state),
        verdict=None if row.verdict is None else State(row.verdict),
        reason=row.reason,
        began_at=None if row.began_at is None else _moment(row.began_at),
        # It is missing until the run is derived again after a migration.
        is_start_known=row.is_start_known is not False,
        ended_at=None if row.ended_at is None else _moment(row.ended_at),
        last_sign_at=_moment(row.last_sign_at),
        overdue=standing(filter(None, [alarm_in(row.alarm)])) if row.state == State.RUNNING else None,
        tasks={state: tasks[state] for state in State if state in tasks},
        failures=tuple(failures),
    )


def _identity(row: Row[Any]) -> Run:
    return Run(row.workflow_name, row.workflow_version, row.run_id, row.recipe_run_id)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
