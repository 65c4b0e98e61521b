"""
How long the latest runs of a workflow and the attempts of their tasks took, and how many failed, by version.

Not here: the use of memory and processors (usage), and the comparison of versions (dashboard).
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from dkist_processing_core.collect.keys import task_key, task_without_index, workflow_key
from dkist_processing_core.collect.questions.of_rows import identity_of, known_moment, moment_of
from dkist_processing_core.collect.questions.overview import (
    EarlierAttempt,
    RunDuration,
    Spread,
    TaskFigures,
    VersionFigures,
)
from dkist_processing_core.collect.tables import ATTEMPTS, IDENTITY, RUNS, WAS_MEASURED
from dkist_processing_core.runs import State

_ENDED = (State.FINISHED, State.FAILED)
_OF_RUN = (
    *IDENTITY,
    *(RUNS.c.state, RUNS.c.began_at, RUNS.c.ended_at, RUNS.c.duration_order, RUNS.c.last_sign_at),
)


def run_durations(connection: Connection, workflow_name: str, limit: int) -> list[RunDuration]:
    """Return how long the latest runs of a workflow took, the one with the latest report first."""
    return [
        RunDuration(identity_of(row), State(row.state), moment_of(row.began_at), moment_of(row.ended_at), _seconds(row))
        for row in connection.execute(_latest(workflow_name, limit, *_OF_RUN))
    ]


def version_figures(connection: Connection, workflow_name: str, limit: int) -> list[VersionFigures]:
    """Return the figures of each version in the latest runs of a workflow, the version used last first."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_latest(workflow_name, limit, *_OF_RUN)):
        found[row.workflow_version].append(row)
    return [
        VersionFigures(
            version,
            known_moment(rows[-1].last_sign_at),
            known_moment(rows[0].last_sign_at),
            _counted(rows),
            spread_of(_seconds(row) for row in rows if row.state == State.FINISHED),
        )
        for version, rows in found.items()
    ]


def task_figures(connection: Connection, workflow_name: str, limit: int) -> list[TaskFigures]:
    """Return the figures of each task and version in the latest runs of a workflow, by the names of the tasks."""
    latest = _latest(workflow_name, limit, RUNS.c.number, RUNS.c.workflow_version).subquery()
    names = ("task_name", "state", "cause", "queued_seconds", "preparation_seconds", "duration_seconds")
    query = select(latest.c.workflow_version, *(ATTEMPTS.c[name] for name in names))
    query = query.join_from(latest, ATTEMPTS, ATTEMPTS.c.run == latest.c.number).where(ATTEMPTS.c.state.in_(_ENDED))
    found: dict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(query):
        found[task_without_index(row.task_name), row.workflow_version].append(row)
    return [_figures(*key, rows) for key, rows in sorted(found.items())]


def _figures(task_name: str, version: str, rows: Sequence[Row[Any]]) -> TaskFigures:
    finished = [row for row in rows if row.state == State.FINISHED]
    return TaskFigures(
        task_name,
        version,
        attempts=len(rows),
        failed=len(rows) - len(finished),
        causes=dict(sorted(Counter(row.cause for row in rows if row.state == State.FAILED).items())),
        queued=spread_of(row.queued_seconds for row in finished),
        environment=spread_of(row.preparation_seconds for row in finished),
        durations=spread_of(row.duration_seconds for row in finished),
    )


def earlier_attempts(
    connection: Connection, workflow_name: str, task_names: Iterable[str], before: datetime | None, limit: int
) -> dict[str, list[EarlierAttempt]]:
    """Return the latest successful attempts of tasks; see `Questions.earlier_attempts`."""
    names = ("run", "ended_at", "queued_seconds", "preparation_seconds", "measured_seconds")
    query = select(*(ATTEMPTS.c[name] for name in names)).where(WAS_MEASURED)
    if before is not None:
        query = query.where(ATTEMPTS.c.ended_at < before.timestamp())
    query = query.order_by(ATTEMPTS.c.ended_at.desc()).limit(limit)
    found: dict[str, list[EarlierAttempt]] = {}
    for name in dict.fromkeys(map(task_without_index, task_names)):
        # The condition of the index names a column that runs have as well.
        latest = query.where(ATTEMPTS.c.task_key == task_key(workflow_name, name)).subquery()
        of_runs = select(RUNS.c.workflow_version, *(latest.c[name] for name in names[1:])).join_from(
            latest, RUNS, RUNS.c.number == latest.c.run
        )
        rows = connection.execute(of_runs.order_by(latest.c.ended_at.desc()))
        found[name] = [EarlierAttempt(version, moment_of(at), *seconds) for version, at, *seconds in rows]
    return found


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the durations that are known; None if none is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(len(known), statistics.median(known), known[-(-len(known) * 95 // 100) - 1])


def _latest(workflow_name: str, limit: int, *columns: Any) -> Select[Any]:
    of_workflow = (RUNS.c.workflow_key == workflow_key(workflow_name), RUNS.c.state.is_not(None))
    return select(*columns).where(*of_workflow).order_by(RUNS.c.last_sign_at.desc(), RUNS.c.number.desc()).limit(limit)


def _seconds(row: Row[Any]) -> float | None:
    return None if row.duration_order is None or row.duration_order < 0 else float(row.duration_order)


def _counted(rows: Sequence[Row[Any]]) -> dict[State, int]:
    counts = Counter(State(row.state) for row in rows)
    return {state: counts[state] for state in State if state in counts}
