"""
Airflow's observations of an attempt as events: its dispatch, and its provisional ends.

Not here: when Airflow calls (callbacks), and the end of the run (_runs).
"""

import contextlib
import platform
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dkist_processing_core.airflow._context import attempt_of, instance_of, moment, seconds_between
from dkist_processing_core.airflow._publishing import publishing, reporter_of, reporter_of_run
from dkist_processing_core.airflow._workflow import ExportedWorkflow
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    TaskDispatched,
    TaskFailed,
    TaskSkipped,
    WorkflowStarted,
    describe,
)
from dkist_processing_core.identity import class_name_of
from dkist_processing_core.process.termination import signal_name
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.text.exception_text import class_name, message_of

# Airflow's exceptions by class name, because they have moved between modules.
_CAUSES = {
    "AirflowTaskTimeout": Cause.TIMEOUT,
    "AirflowTaskTerminated": Cause.TERMINATED,
    "TerminationError": Cause.TERMINATED,
}
_EXIT_CODE = re.compile(r"exit code (-?\d+)")


def dispatched(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> None:
    """Publish that an attempt reached a worker; the launcher, which starts next, delivers the event to the bus."""
    _hand_over_origin(context)
    ti, attempt = instance_of(context), attempt_of(workflow, context)
    events: list[Event] = []
    if workflow.is_root(class_name_of(attempt.task_name)):
        dag_run = context.get("dag_run")
        of_run = reporter_of_run(ti, attempt.run, dag_run)
        events.append(of_run.event(WorkflowStarted, **start_facts(workflow, dag_run)))
    queue = getattr(ti, "queue", None) or getattr(context.get("task"), "queue", None)
    queue = queue if isinstance(queue, str) else None
    events.append(reporter_of(ti, attempt).event(TaskDispatched, queue=queue, worker=platform.node()))
    with publishing(delivers=False) as publisher:
        publisher.publish(*events)


def _hand_over_origin(context: Mapping[str, Any]) -> None:
    """
    Make the launcher read the same settings as the callbacks: Airflow starts it in a new folder.

    Airflow renders and shows the operator's templates before it calls this function.
    """
    environ = getattr(context.get("task"), "env", None)
    if isinstance(environ, dict):
        environ.update(Origin.of_process().to_environ())


def start_facts(workflow: ExportedWorkflow, dag_run: object) -> dict[str, Any]:
    """Return the fields of `WorkflowStarted` for a run; each report of the same start states the same facts."""
    graph = Graph(nodes=workflow.nodes, edges=workflow.edges)
    return {"started_at": moment(dag_run, "start_date"), "graph": graph}


def failed(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> None:
    """
    Publish that the last attempt apparently failed. Airflow also calls this for a task that is cleared.

    The announcement, which follows, reports the failure as final, and delivers both to the bus.
    """
    with _reporting(workflow, context, delivers=False) as reporter:
        reporter.report(TaskFailed, **failure_of(workflow, context), final=None)


def retried(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> None:
    """Publish that an attempt failed and another follows, and deliver it now: the next may run on another host."""
    with _reporting(workflow, context, delivers=True) as reporter:
        reporter.report(TaskFailed, **failure_of(workflow, context), final=False)


def skipped(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> None:
    """Publish that Airflow skipped a task."""
    error = context.get("exception")
    reason = message_of(error) if isinstance(error, BaseException) else None
    with _reporting(workflow, context, delivers=True) as reporter:
        reporter.report(TaskSkipped, **_end(context), reason=reason or None)


@contextlib.contextmanager
def _reporting(workflow: ExportedWorkflow, context: Mapping[str, Any], *, delivers: bool) -> Iterator[EventReporter]:
    attempt = attempt_of(workflow, context)
    with publishing(delivers=delivers) as publisher:
        yield reporter_of(instance_of(context), attempt, publisher)


def failure_of(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return Airflow's knowledge of a failure as fields of `TaskFailed`, without `final`.

    Raises:
        IdentityError: The context names no attempt.
    """
    return {**_end(context), "log_url": attempt_of(workflow, context).log_url, **_why(context)}


def _end(context: Mapping[str, Any]) -> dict[str, Any]:
    ti = instance_of(context)
    return {
        "provisional": True,
        "duration_seconds": seconds_between(moment(ti, "start_date"), moment(ti, "end_date")),
    }


def cause_of(context: Mapping[str, Any]) -> Cause:
    """Return the cause of a failure as Airflow knows it; `LOST` in the DAG processor, which knows no cause."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return Cause.LOST
    named = next((_CAUSES[each] for each in map(class_name, type(error).__mro__) if each in _CAUSES), None)
    if named is not None:
        return named
    status = _exit_code_of(error)
    if status is None:
        return Cause.EXCEPTION
    return Cause.LOST if status < 0 else Cause.EXIT_CODE


def _why(context: Mapping[str, Any]) -> dict[str, Any]:
    cause, error = cause_of(context), context.get("exception")
    if not isinstance(error, BaseException):
        return {"cause": cause, "message": str(error) if error else "the engine lost the task"}
    status = _exit_code_of(error)
    if cause is Cause.LOST and status is not None:
        return {"cause": cause, "message": "its launcher was killed", "signal": signal_name(-status)}
    if cause is Cause.EXCEPTION:
        return {**describe(error)}
    return {"cause": cause, "message": message_of(error) or class_name(type(error)), "exit_code": status}


def _exit_code_of(error: BaseException) -> int | None:
    """Return the exit status of the command if Airflow's exception is about one; None otherwise."""
    found = _EXIT_CODE.search(message_of(error)) if class_name(type(error)) == "AirflowException" else None
    return None if found is None else int(found[1])
