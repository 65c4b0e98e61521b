"""
The metrics of attempts and runs, read from one state of the store.

Not here: counting what has ended (folding.counting), and serving the metrics (metrics).
"""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from dkist_processing_core import semconv
from dkist_processing_core.collect.folding import totals
from dkist_processing_core.collect.keys import task_without_index
from dkist_processing_core.collect.tables import ATTEMPTS, IS_OPEN, IS_RUNNING, RUNS
from dkist_processing_core.metrics.declarations import ATTEMPT_ACTIVE, OF_ATTEMPTS, RUN_ACTIVE
from dkist_processing_core.metrics.measurement import Measurement, Metric, Number

_ACTIVE = (ATTEMPT_ACTIVE, RUN_ACTIVE)


def measurements_of(connection: Connection) -> list[Measurement]:
    """Return all metrics of attempts and runs."""
    ended = totals.measurements(connection, [metric for metric in OF_ATTEMPTS if metric not in _ACTIVE])
    return [*ended, _active_attempts(connection), _active_runs(connection)]


def _active_attempts(connection: Connection) -> Measurement:
    names = (RUNS.c.workflow_name, ATTEMPTS.c.task_name, ATTEMPTS.c.state)
    # The table of attempts first, whose index has the open ones alone.
    query = select(*names, func.count().label("number")).join_from(ATTEMPTS, RUNS).where(IS_OPEN).group_by(*names)
    counts: Counter[tuple[tuple[str, str], ...]] = Counter()
    for row in connection.execute(query):
        attributes = {
            semconv.PIPELINE_NAME: row.workflow_name,
            semconv.PIPELINE_TASK_NAME: task_without_index(row.task_name),
            semconv.ATTEMPT_STATE: row.state,
        }
        counts[tuple(attributes.items())] += row.number
    return _measurement(ATTEMPT_ACTIVE, counts)


def _active_runs(connection: Connection) -> Measurement:
    query = select(RUNS.c.workflow_name, func.count().label("number")).where(IS_RUNNING).group_by(RUNS.c.workflow_name)
    counts: dict[tuple[tuple[str, str], ...], int] = {
        ((semconv.PIPELINE_NAME, row.workflow_name), (semconv.PIPELINE_RUN_STATE, semconv.EXECUTING)): row.number
        for row in connection.execute(query)
    }
    return _measurement(RUN_ACTIVE, counts)


def _measurement(metric: Metric, counts: Mapping[tuple[tuple[str, str], ...], int]) -> Measurement:
    return Measurement(metric, [Number(number, dict(attributes)) for attributes, number in sorted(counts.items())])
