"""
Parts of sorted lists of runs, for pages that show one part at a time, and the runs of a time.

Not here: which runs a choice has (choosing), and the rows as answers (of_rows).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    UnaryExpression,
    case,
    func,
    or_,
    select,
    tuple_,
    union,
)

from dkist_processing_core.collect.keys import workflow_key
from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.collect.questions.choosing import Condition, has_few, of_runs
from dkist_processing_core.collect.questions.of_rows import runs_of
from dkist_processing_core.collect.questions.overview import Order, RunPage
from dkist_processing_core.collect.tables import RUNS, TALLIES
from dkist_processing_core.consumer import matches
from dkist_processing_core.runs import State

_COLUMNS: dict[Order, ColumnElement[Any]] = {
    Order.LAST_REPORT: RUNS.c.last_sign_at,
    Order.BEGAN: RUNS.c.begin_order,
    Order.DURATION: RUNS.c.duration_order,
    Order.WORKFLOW: RUNS.c.begin_order,
}
# Few runs take longer.
_USUAL_SECONDS = 86_400.0


def page_of(
    connection: Connection,
    choice: Choice,
    order: Order,
    *,
    is_descending: bool,
    first: int,
    size: int,
    most_failures: int | None,
) -> RunPage:
    """Return a part of the list of the chosen runs; see `Questions.run_page`."""
    total = sum(states_of(connection, choice).values())
    queries: Iterable[Select[Any]]
    if order is Order.WORKFLOW:
        queries = _by_workflow(connection, choice, is_descending=is_descending, first=first, size=size)
    else:
        queries = [_part(of_runs(connection, choice), _COLUMNS[order], is_descending, first, size)]
    return RunPage([run for each in queries for run in runs_of(connection, each, most_failures)], first, total)


def _part(
    conditions: list[Condition],
    column: ColumnElement[Any],
    is_descending: bool,  # noqa: FBT001
    first: int,
    size: int,
) -> Select[Any]:
    def directed(each: ColumnElement[Any]) -> UnaryExpression[Any]:
        return each.desc() if is_descending else each.asc()

    query = select(RUNS).where(*conditions).order_by(directed(column), directed(RUNS.c.number))
    return query.limit(size).offset(first)


def _by_workflow(
    connection: Connection, choice: Choice, *, is_descending: bool, first: int, size: int
) -> Iterator[Select[Any]]:
    """Yield parts of the list by workflow: an index has the digests of the names, which are in no useful order."""
    conditions, tallied = of_runs(connection, choice), _tallied(connection, choice)
    counts: Counter[str] = Counter()
    if tallied is None:
        by_name = select(RUNS.c.workflow_name, func.count()).where(*conditions).group_by(RUNS.c.workflow_name)
        for name, count in connection.execute(by_name):
            counts[name] = count
    else:
        for row in tallied:
            counts[row.workflow_name] += row.runs
    for name, count in sorted(counts.items(), reverse=is_descending):
        if first < count and size > 0:
            of_workflow = [*conditions, RUNS.c.workflow_key == workflow_key(name)]
            column = _COLUMNS[Order.WORKFLOW]
            yield _part(of_workflow, column, True, first, size)  # noqa: FBT003
            size -= count - first
        first = max(0, first - count)


def _tallied(connection: Connection, choice: Choice) -> list[Row[Any]] | None:
    """Return the known numbers of runs of a choice of whole versions and states; None for another choice."""
    if replace(choice, workflow=None, version=None, states=()) != Choice():
        return None
    query: Select[Any] = select(TALLIES)
    if choice.version is not None:
        query = query.where(TALLIES.c.workflow_version == choice.version)
    if choice.states:
        query = query.where(TALLIES.c.state.in_(choice.states))
    rows = connection.execute(query).all()
    return [row for row in rows if choice.workflow is None or matches(choice.workflow, row.workflow_name)]


def run_before(connection: Connection, number: int) -> StoredRun | None:
    """Return the run of the same workflow that began before another one; see `Questions.run_before`."""
    columns = (RUNS.c.workflow_key, RUNS.c.begin_order, RUNS.c.number)
    this = connection.execute(select(*columns).where(RUNS.c.number == number)).one()
    began_before = tuple_(RUNS.c.begin_order, RUNS.c.number) < tuple_(this.begin_order, this.number)
    query = select(RUNS).where(RUNS.c.workflow_key == this.workflow_key, RUNS.c.state.is_not(None), began_before)
    query = query.order_by(RUNS.c.begin_order.desc(), RUNS.c.number.desc()).limit(1)
    finished = runs_of(connection, query.where(RUNS.c.state == State.FINISHED))
    return next(iter(finished or runs_of(connection, query)), None)


def runs_between(connection: Connection, first: datetime, last: datetime, limit: int | None) -> list[StoredRun]:
    """Return the runs that went on in a time; see `Questions.runs_between`."""
    earliest, latest = first.timestamp(), last.timestamp()
    # Each part uses an index with both bounds: in a large store, most runs are later than the time.
    may_be_of_it = union(
        select(RUNS.c.number).where(RUNS.c.state == State.RUNNING),
        select(RUNS.c.number).where(RUNS.c.ended_at >= earliest, RUNS.c.ended_at <= latest + _USUAL_SECONDS),
        select(RUNS.c.number).where(RUNS.c.duration_order > _USUAL_SECONDS),
        # Their beginning or their end was not reported.
        select(RUNS.c.number).where(RUNS.c.duration_order < 0),
    )
    is_running, end = RUNS.c.state == State.RUNNING, func.coalesce(RUNS.c.ended_at, RUNS.c.last_sign_at)
    is_of_it = (RUNS.c.begin_order <= latest, or_(is_running, end >= earliest), RUNS.c.state.is_not(None))
    query = select(RUNS).where(RUNS.c.number.in_(may_be_of_it), *is_of_it)
    goes_on = or_(is_running, end >= latest)
    order = (case((goes_on, 0), else_=1), RUNS.c.begin_order.desc(), RUNS.c.number.desc())
    return runs_of(connection, query.order_by(*order).limit(limit))


def states_of(connection: Connection, choice: Choice) -> dict[State, int]:
    """Return the number of the chosen runs in each state; a state without one is missing."""
    found: dict[State, int] = {}
    tallied = _tallied(connection, choice)
    if tallied is not None:
        for row in tallied:
            found[State(row.state)] = found.get(State(row.state), 0) + row.runs
    else:
        # An index has the states with their times; few runs are found by another one.
        all_states = () if has_few(choice) else tuple(State)
        of_states = replace(choice, states=choice.states or all_states)
        counts = select(RUNS.c.state, func.count()).where(*of_runs(connection, of_states)).group_by(RUNS.c.state)
        found = {State(state): count for state, count in connection.execute(counts)}
    return {state: found[state] for state in State if state in found and (not choice.states or state in choice.states)}
