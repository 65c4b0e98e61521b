"""
The runs that ended in each of the latest hours, of all workflows and of each.

Not here: the drawing of a chart (dashboard).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Integer, cast, func, select

from dkist_processing_core.collect.keys import workflow_key
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.choosing import keys_of, of_runs, workflows_in
from dkist_processing_core.collect.questions.overview import Activity, Hour
from dkist_processing_core.collect.tables import RUNS
from dkist_processing_core.runs import State

_HOUR = 3600
_Counts = dict[tuple[int, State], int]


def activity(connection: Connection, choice: Choice, until: datetime, hours: int) -> Activity:
    """Return the runs that ended in the latest hours; see `Questions.activity`."""
    last = int(until.timestamp()) // _HOUR
    numbers = range(last - hours + 1, last + 1)
    counts, names = _counts(connection, choice, numbers.start * _HOUR, until.timestamp())
    of_all: _Counts = defaultdict(int)
    for of_workflow in counts.values():
        for key, count in of_workflow.items():
            of_all[key] += count
    by_name = sorted((names[key], of_workflow) for key, of_workflow in counts.items())
    return Activity(_hours(of_all, numbers), {name: _hours(each, numbers) for name, each in by_name})


def _counts(
    connection: Connection, choice: Choice, since: float, until: float
) -> tuple[dict[bytes, _Counts], dict[bytes, str]]:
    """Return how many runs of each workflow ended in each hour in each state, and the names of the workflows."""
    states = [state for state in choice.states or State if state.is_end]
    # States and workflows are chosen from the answer: conditions on them lead SQLite to an index of all runs by these.
    chosen = of_runs(connection, replace(choice, since=None, until=None, states=(), workflow=None))
    keys = None if choice.workflow is None else keys_of(connection, choice.workflow)
    found: dict[bytes, _Counts] = defaultdict(lambda: defaultdict(int))
    # A run whose end was not reported ended with the last report on it. Each of the two has an index.
    for end, conditions in ((RUNS.c.ended_at, []), (RUNS.c.last_sign_at, [RUNS.c.ended_at.is_(None)])):
        # PostgreSQL rounds when it casts, and SQLite has no other function that it always has.
        hours = end / _HOUR
        hour = cast(func.trunc(hours) if connection.dialect.name == "postgresql" else hours, Integer).label("hour")
        grouped = select(RUNS.c.workflow_key, hour, RUNS.c.state, func.count().label("runs"))
        query = grouped.where(end >= since, end <= until, *conditions, *chosen)
        for key, number, state, count in connection.execute(query.group_by(RUNS.c.workflow_key, hour, RUNS.c.state)):
            if state in states and (keys is None or key in keys):
                found[key][number, State(state)] += count
    names = {key: name for name in workflows_in(connection) if (key := workflow_key(name)) in found}
    return found, names


def _hours(counts: Mapping[tuple[int, State], int], numbers: range) -> tuple[Hour, ...]:
    return tuple(
        Hour(
            datetime.fromtimestamp(0, UTC) + timedelta(hours=number),
            {state: counts[number, state] for state in State if (number, state) in counts},
        )
        for number in numbers
    )
