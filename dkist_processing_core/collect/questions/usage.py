"""
What the attempts of each task, and of each queue, have used: read from the store and added up.

Not here: the answer (answers), and the use by one attempt (collect.folding.use).
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, func, select

from dkist_processing_core.collect.keys import task_without_index
from dkist_processing_core.collect.questions.answers import Choice, Usage
from dkist_processing_core.collect.tables import ATTEMPTS, RUNS
from dkist_processing_core.consumer import matches
from dkist_processing_core.events import Cause
from dkist_processing_core.runs import State

_RAN = (State.RUNNING, State.FINISHED, State.FAILED)
_COLUMNS = (
    "task_name",
    "queue",
    "cause",
    "died",
    "duration_seconds",
    "peak_memory",
    "memory_limit",
    "cpu_used",
    "cpu_limit",
    "bytes_read",
    "bytes_written",
)


def usages(connection: Connection, choice: Choice) -> tuple[list[Usage], list[Usage]]:
    """
    Return what each task of the chosen workflow has used, and each queue of these tasks.

    A queue has the attempts of all workflows, since its memory must be enough for all of them. Of a choice, its time
    and its workflow are used.
    """
    sign = func.coalesce(ATTEMPTS.c.last_sign_at, RUNS.c.last_sign_at)
    query = select(RUNS.c.workflow_name, *(ATTEMPTS.c[name] for name in _COLUMNS)).select_from(ATTEMPTS.join(RUNS))
    query = query.where(ATTEMPTS.c.state.in_(_RAN)).order_by(sign, ATTEMPTS.c.run, ATTEMPTS.c.place)
    if choice.since is not None:
        query = query.where(sign >= choice.since.timestamp())
    tasks: dict[tuple[str, str, str], list[Row[Any]]] = defaultdict(list)
    queues: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(query):
        queues[row.queue or ""].append(row)
        if choice.workflow is None or matches(choice.workflow, row.workflow_name):
            tasks[row.workflow_name, task_without_index(row.task_name), row.queue or ""].append(row)
    of_tasks = [_usage(rows, queue, workflow, task) for (workflow, task, queue), rows in sorted(tasks.items())]
    used = {queue for *_, queue in tasks}
    return of_tasks, [_usage(rows, queue) for queue, rows in sorted(queues.items()) if queue in used]


def _usage(rows: list[Row[Any]], queue: str, workflow: str | None = None, task: str | None = None) -> Usage:
    """Return what attempts have used, of which the latest is the last."""
    peaks = [row.peak_memory for row in rows if row.peak_memory is not None]
    timed = [row for row in rows if row.cpu_used is not None and row.duration_seconds]
    return Usage(
        queue=queue or None,
        attempts=len(rows),
        died=sum(bool(row.died) for row in rows),
        out_of_memory=sum(row.cause == Cause.OUT_OF_MEMORY for row in rows),
        memory_median=round(statistics.median(peaks)) if peaks else None,
        memory_largest=max(peaks, default=None),
        memory_limit=_latest(row.memory_limit for row in rows),
        cpu_mean=sum(row.cpu_used for row in timed) / sum(row.duration_seconds for row in timed) if timed else None,
        cpu_limit=_latest(row.cpu_limit for row in rows),
        bytes_read=_total(row.bytes_read for row in rows),
        bytes_written=_total(row.bytes_written for row in rows),
        workflow_name=workflow,
        task_name=task,
    )


def _latest(values: Iterable[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
