"""
Families of failures: those of a choice, and in which version of a workflow each occurred first.

The number of statements is the same for any number of families up to some hundreds. They cover the runs in the
store, thus 400 days. Not here: which failures a choice has (choosing).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, literal, select, text, union_all

from dkist_processing_core.collect.keys import workflow_key
from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.questions.answers import Choice, Family, FirstFailure, RecentFamily, StoredAttempt
from dkist_processing_core.collect.questions.choosing import (
    Condition,
    of_failures,
    of_failures_in_time,
    of_identity,
    without_index,
)
from dkist_processing_core.collect.questions.of_rows import ALL_ATTEMPTS, IS_FINAL, attempt_of, known_moment
from dkist_processing_core.collect.reports.stored import details_of, key_of, reports_on
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_FAILED, RUNS
from dkist_processing_core.errors import ReportsUnreadableError
from dkist_processing_core.events import TaskFailed
from dkist_processing_core.runs import State

_FINAL = func.sum(case((IS_FINAL, 1), else_=0))


def recent_families(connection: Connection, choice: Choice, limit: int | None) -> list[RecentFamily]:
    """Return the families of a choice; see `Questions.recent_families`."""
    found = {
        row.family: RecentFamily(
            family=row.family, count=row.failures, last_at=known_moment(row.failed_at), last=attempt_of(row)
        )
        for row in _latest(connection, choice, limit)
    }
    columns = (ATTEMPTS.c.family, ATTEMPTS.c.task_name)
    for part in in_parts(list(found)):
        query = select(*columns, _FINAL).select_from(ATTEMPTS.join(RUNS))
        query = query.where(*of_failures_in_time(connection, choice), ATTEMPTS.c.family.in_(part))
        for family, task, final in connection.execute(query.group_by(*columns).order_by(*columns)):
            found[family].final += int(final)
            found[family].tasks.append(task)
    return list(found.values())


def whole_families(connection: Connection, choice: Choice, limit: int | None) -> list[Family]:
    """Return the families of a choice; see `Questions.families`."""
    latest = {row.family: row for row in _latest(connection, choice, limit)}
    names = list(latest)
    totals = _totals(connection, names)
    firsts = first_failures(connection, names)
    found = {
        family: Family(
            family=family,
            count=row.failures,
            last_at=known_moment(row.failed_at),
            last=attempt_of(row),
            total=totals[family].failures,
            first_at=known_moment(totals[family].first_at),
            first=firsts.get(family),
        )
        for family, row in latest.items()
    }
    for part in in_parts(names):
        _complete(connection, found, [*of_failures_in_time(connection, choice), ATTEMPTS.c.family.in_(part)])
    return list(found.values())


def _latest(connection: Connection, choice: Choice, limit: int | None) -> Iterator[Row[Any]]:
    """Yield the latest failure of each family of a choice, with the number of its failures, the last one first."""
    chosen = of_failures_in_time(connection, choice)
    # The table of runs only if something is asked of it: an index has the families with their times.
    source = ATTEMPTS.join(RUNS) if of_identity(connection, choice) else ATTEMPTS
    last = func.max(ATTEMPTS.c.failed_at)
    named = (ATTEMPTS.c.family.label("named"), func.count().label("failures"), last.label("latest_at"))
    counted = select(*named).select_from(source).where(*chosen)
    # An index has the families in their order, but with their failures of all times.
    counted = counted.group_by(without_index(connection, ATTEMPTS.c.family))
    recent = counted.order_by(last.desc(), ATTEMPTS.c.family).limit(limit).subquery()
    is_latest = and_(ATTEMPTS.c.family == recent.c.named, ATTEMPTS.c.failed_at == recent.c.latest_at)
    query = ALL_ATTEMPTS.add_columns(recent.c.failures).join(recent, is_latest)
    # SQLite would otherwise compare all failures by the cause with the latest ones.
    query = query.where(*of_failures(connection, replace(choice, cause=None)))
    if choice.cause is not None:
        query = query.where(without_index(connection, ATTEMPTS.c.cause) == choice.cause)
    order = (recent.c.latest_at.desc(), recent.c.named, ATTEMPTS.c.run.desc(), ATTEMPTS.c.place.desc())
    before = None
    for row in connection.execute(query.order_by(*order)):
        # Several may have failed at the same time.
        if row.family != before:
            yield row
        before = row.family


def _totals(connection: Connection, families: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the number of failures of families at any time, and the time of the first of each."""
    # An index has these of all runs; of some, each failure would be looked up with its run.
    first = func.min(ATTEMPTS.c.failed_at).label("first_at")
    query = select(ATTEMPTS.c.family, func.count().label("failures"), first).where(HAS_FAILED)
    query = query.group_by(ATTEMPTS.c.family)
    return {
        row.family: row
        for part in in_parts(families)
        for row in connection.execute(query.where(ATTEMPTS.c.family.in_(part)))
    }


def _complete(connection: Connection, found: dict[str, Family], chosen: Sequence[Condition]) -> None:
    """Add where the failures of families occurred."""
    columns = (ATTEMPTS.c.family, RUNS.c.workflow_name, RUNS.c.workflow_version, ATTEMPTS.c.task_name)
    query = select(*columns, _FINAL, func.count(ATTEMPTS.c.run.distinct())).select_from(ATTEMPTS.join(RUNS))
    for family, workflow, version, task, ended, runs in connection.execute(
        query.where(*chosen).group_by(*columns).order_by(*columns)
    ):
        each = found[family]
        each.final += int(ended)
        each.runs += runs
        if version not in each.workflows[workflow]:
            each.workflows[workflow].append(version)
        if task not in each.tasks:
            each.tasks.append(task)
    counts = select(ATTEMPTS.c.family, func.count(RUNS.c.recipe_run_id.distinct())).join_from(ATTEMPTS, RUNS)
    for family, count in connection.execute(counts.where(*chosen).group_by(ATTEMPTS.c.family)):
        found[family].recipe_runs = count


def first_failure(connection: Connection, family: str) -> FirstFailure | None:
    """Return the first failure of a family; None if the store has none."""
    return first_failures(connection, [family]).get(family)


def first_failures(connection: Connection, families: Iterable[str]) -> dict[str, FirstFailure]:
    """Return the first failure of each family that the store has. It reads a few rows of each, by an index."""
    return {
        row.family: FirstFailure(
            row.failed_at, row.workflow_name, row.workflow_version, row.task_name, row.last_good_version
        )
        for part in in_parts(list(families))
        for row in _first(connection, part)
    }


def _first(connection: Connection, families: Sequence[str]) -> Sequence[Row[Any]]:
    wanted = union_all(*(select(literal(family).label("named")) for family in families)).subquery("wanted")
    each, good, of_good = ATTEMPTS.alias(), ATTEMPTS.alias("good"), RUNS.alias()
    # By the least time, which an index has for each family alone.
    first_at = select(func.min(each.c.failed_at)).where(each.c.family == wanted.c.named).scalar_subquery()
    is_first = and_(HAS_FAILED, ATTEMPTS.c.family == wanted.c.named, ATTEMPTS.c.failed_at == first_at)
    last_good = (
        select(of_good.c.workflow_version)
        .join_from(good, of_good, of_good.c.number == good.c.run)
        .where(
            # The condition of `WAS_MEASURED`, of the other one of two attempts.
            text("good.measured_seconds IS NOT NULL AND good.state = 'finished'"),
            good.c.task_key == ATTEMPTS.c.task_key,
            good.c.ended_at < ATTEMPTS.c.failed_at,
            of_good.c.workflow_version != RUNS.c.workflow_version,
        )
        .order_by(good.c.ended_at.desc())
        .limit(1)
        .correlate(ATTEMPTS, RUNS)
        .scalar_subquery()
    )
    columns = (ATTEMPTS.c.family, ATTEMPTS.c.failed_at, ATTEMPTS.c.task_name, ATTEMPTS.c.run, ATTEMPTS.c.place)
    of_run = (RUNS.c.workflow_name, RUNS.c.workflow_version, last_good.label("last_good_version"))
    query = select(*columns, *of_run).select_from(wanted).join(ATTEMPTS, is_first).join(RUNS)
    # Of several at the same time, the last one counts: the one that the store had first.
    return sorted(connection.execute(query), key=lambda row: (-row.run, -row.place))


def finished_since(connection: Connection, family: Family) -> int:
    """Return the number of attempts of the tasks of a family that have finished since it occurred last."""
    query, since = select(func.count()).select_from(ATTEMPTS.join(RUNS)), family.last_at.timestamp()
    # No attempt ended after the last report on its run: an index has the runs of a workflow since a time.
    of_runs_since = (RUNS.c.workflow_key.in_(map(workflow_key, family.workflows)), RUNS.c.last_sign_at >= since)
    has_finished = (ATTEMPTS.c.state == State.FINISHED, ATTEMPTS.c.ended_at > since)
    of_tasks = ATTEMPTS.c.task_name.in_(family.tasks)
    return connection.scalar(query.where(*of_runs_since, of_tasks, *has_finished)) or 0


def stack_of(connection: Connection, number: int, failure: StoredAttempt) -> str | None:
    """Return the stack of the exception of a failed attempt of a run; None if no report has it, or none can be read."""
    with suppress(ReportsUnreadableError):
        for received in reports_on(connection, number, is_whole=False):
            event = received.event
            if isinstance(event, TaskFailed) and (event.task_name, event.attempt) == (
                failure.task_name,
                failure.number,
            ):
                whole = details_of(connection, number, [key_of(event)]).get(key_of(event), event)
                if isinstance(whole, TaskFailed) and whole.stack:
                    return whole.stack
    return None
