"""
What the engine sees of an attempt, as events: its dispatch, and ends that are provisional.

Not here: when the engine calls (callbacks), and what becomes of the run (_runs).
"""

import platform
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dkist_processing_core.airflow import _traces
from dkist_processing_core.airflow._context import attempt_of, instance_of, moment, seconds_between
from dkist_processing_core.airflow._publishing import head, publishing
from dkist_processing_core.airflow.callbacks import Callbacks
from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    TaskDispatched,
    TaskFailed,
    TaskSkipped,
    WorkflowStarted,
    describe,
    identity_of,
)
from dkist_processing_core.identity import Run, class_name_of
from dkist_processing_core.termination import signal_name
from dkist_processing_core.trace_context import derived_attempt_span_id

# The engine's exceptions, by name: they have moved from module to module.
_CAUSES = {
    "AirflowTaskTimeout": Cause.TIMEOUT,
    "AirflowTaskTerminated": Cause.TERMINATED,
    "TerminationError": Cause.TERMINATED,
}
_EXIT_CODE = re.compile(r"exit code (-?\d+)")
_BY_SIGNAL = 128


def dispatched(callbacks: Callbacks, context: Mapping[str, Any]) -> None:
    """Publish that an attempt reached a worker; the launcher that follows brings it to the bus."""
    ti, attempt = instance_of(context), attempt_of(callbacks, context)
    events: list[Event] = []
    if callbacks.is_root(class_name_of(attempt.task_name)):
        dag_run = context.get("dag_run")
        said = head(ti, attempt.run, _traces.root_span_id(attempt.run, dag_run))
        events.append(workflow_started(callbacks, attempt.run, said, moment(dag_run, "start_date")))
    queue = getattr(ti, "queue", None) or getattr(context.get("task"), "queue", None)
    events.append(
        TaskDispatched(
            **head(ti, attempt.run, derived_attempt_span_id(attempt)),
            **identity_of(attempt),
            queue=queue if isinstance(queue, str) else None,
            worker=platform.node(),
        )
    )
    with publishing(delivers=False) as publisher:
        publisher.publish(*events)


def workflow_started(
    callbacks: Callbacks, run: Run, said: Mapping[str, Any], started_at: datetime | None
) -> WorkflowStarted:
    """Return that a run began; who says so again states the same fact."""
    graph = Graph(nodes=callbacks.nodes, edges=callbacks.edges)
    return WorkflowStarted(**said, **identity_of(run), started_at=started_at, graph=graph)


def failed(callbacks: Callbacks, context: Mapping[str, Any]) -> None:
    """Publish that the last attempt failed; the failure message that follows takes it to the bus."""
    _publish_end(callbacks, context, TaskFailed, delivers=False, final=True, **_failure(context))


def retried(callbacks: Callbacks, context: Mapping[str, Any]) -> None:
    """Publish that an attempt failed and another follows, perhaps on another host: it goes to the bus from here."""
    _publish_end(callbacks, context, TaskFailed, delivers=True, final=False, **_failure(context))


def skipped(callbacks: Callbacks, context: Mapping[str, Any]) -> None:
    """Publish that the engine passed a task over."""
    error = context.get("exception")
    reason = str(error) if isinstance(error, BaseException) else None
    _publish_end(callbacks, context, TaskSkipped, delivers=True, reason=reason or None)


def _publish_end(
    callbacks: Callbacks,
    context: Mapping[str, Any],
    event_class: type[TaskFailed | TaskSkipped],
    *,
    delivers: bool,
    **facts: Any,
) -> None:
    ti, attempt = instance_of(context), attempt_of(callbacks, context)
    began, over = moment(ti, "start_date"), moment(ti, "end_date")
    if event_class is TaskFailed:
        facts |= {"log_url": attempt.log_url}
    event = event_class(
        **head(ti, attempt.run, derived_attempt_span_id(attempt)),
        **identity_of(attempt),
        provisional=True,
        duration_seconds=seconds_between(began, over),
        **facts,
    )
    with publishing(delivers=delivers) as publisher:
        publisher.publish(event)


def _failure(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the engine knows of why: in its DAG processor nothing, so that the attempt was lost."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return {"cause": Cause.LOST, "message": str(error) if error else "the engine lost the task"}
    named = next((_CAUSES[each.__name__] for each in type(error).__mro__ if each.__name__ in _CAUSES), None)
    if named is not None:
        return {"cause": named, "message": str(error) or type(error).__name__}
    status = exit_code_of(error)
    if status is not None and status < 0:
        return {"cause": Cause.LOST, "message": "its launcher was killed", "signal": signal_name(-status)}
    if status is not None:
        return {"cause": Cause.EXIT_CODE, "message": str(error), "exit_code": status}
    return {**describe(error)}


def exit_code_of(error: object) -> int | None:
    """Return the status of the command, where that is what the engine's exception is about."""
    found = _EXIT_CODE.search(str(error)) if type(error).__name__ == "AirflowException" else None
    return None if found is None else int(found[1])


def was_told_to_end(error: object) -> bool:
    """Say whether an attempt may have ended because somebody asked the engine for that."""
    status = exit_code_of(error)
    return status is None or status > _BY_SIGNAL
