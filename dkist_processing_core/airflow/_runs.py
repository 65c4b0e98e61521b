"""
The end of a run as Airflow sees it: its event, its span, and the unreported failures.

Airflow calls this in the DAG processor, where no task waits for it. Not here: attempts (_attempts).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from dkist_processing_core import budget, semconv
from dkist_processing_core.airflow import _traces
from dkist_processing_core.airflow._attempts import start_facts
from dkist_processing_core.airflow._context import clears_of, instance_of, moment, run_of, seconds_between
from dkist_processing_core.airflow._publishing import publishing, reporter_of_run
from dkist_processing_core.airflow._states import dag_id_of, task_states
from dkist_processing_core.airflow._unreported import unreported_failures
from dkist_processing_core.airflow._waiting_time import at_most
from dkist_processing_core.airflow._workflow import ExportedWorkflow
from dkist_processing_core.airflow.run_end import RunEnd, report_end, report_failures, without_known_successes
from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.events import RecipeRunFailureMessage, WorkflowStarted
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.trace_context import derived_trace_id
from dkist_processing_core.settings.reading import read_leniently
from dkist_processing_core.tracing import open_telemetry


def ended(workflow: ExportedWorkflow, context: Mapping[str, Any], *, succeeded: bool) -> None:
    """Publish the end of a run, and the missing reports and messages about its failed tasks."""
    ti, dag_run, run = instance_of(context), context.get("dag_run"), run_of(workflow, context)
    began, over = moment(dag_run, "start_date"), moment(dag_run, "end_date")
    end = RunEnd(
        succeeded,
        began,
        over,
        seconds_between(began, over or datetime.now(UTC)),
        _states(workflow, context, run),
        None if (reason := context.get("reason")) is None else str(reason),
    )
    # A process that had too little time on a busy host has left a mark. Perhaps no other process follows on this host.
    with publishing(delivers=True, heeds_mark=False, allowance=budget.RUN_CALLBACK) as publisher:
        reporter = reporter_of_run(ti, run, dag_run, publisher)
        # If no root task was executed, the start is unreported; otherwise this repeats the same occurrence.
        reporter.report(WorkflowStarted, **start_facts(workflow, dag_run))
        report_end(reporter, end)
        missing = unreported_failures(run, end.failed_tasks, since=_first_moment(dag_run))
        missing = without_known_successes(missing, run, clears_of(dag_run), publisher.remembers)
        report_failures(reporter, missing, over, partial(_message, run, dag_run, ti))
    if _traces.engines_parent(ti) is None:
        _export_span(run, _traces.root_span_id(run, dag_run), began, over, succeeded=succeeded)


def _states(workflow: ExportedWorkflow, context: Mapping[str, Any], run: Run) -> dict[str, str]:
    with errors_logged("the run's end is published without the states of its tasks"):
        dag_id = dag_id_of(context, workflow.dag_id)
        states = task_states(context, dag_id, run.run_id)
        # These are in the workflow's order, followed by tasks that only Airflow has.
        ordered = {name: states.pop(name) for name in workflow.nodes if name in states}
        return ordered | states
    return {}


def _first_moment(dag_run: object) -> datetime | None:
    """Return when the run was requested: a cleared run begins again, but its earlier failures remain."""
    return min(filter(None, (moment(dag_run, "run_after"), moment(dag_run, "start_date"))), default=None)


def _message(run: Run, dag_run: object, ti: object, task_name: str) -> RecipeRunFailureMessage:
    is_its = getattr(ti, "task_id", None) == task_name
    log_url = getattr(ti, "log_url", None) if is_its else None
    return RecipeRunFailureMessage.about(run, task_name, log_url=log_url, clears=clears_of(dag_run))


def _export_span(run: Run, span_id: int, began: datetime | None, over: datetime | None, *, succeeded: bool) -> None:
    """Export the parent span of all attempts of the run; if Airflow traces, it has its own."""
    with errors_logged("the run's span is not exported"):
        settings, _ = read_leniently()
        telemetry = open_telemetry(settings)
        own = SpanContext(derived_trace_id(run), span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        attributes = semconv.run_attributes(run)
        times = {"start_time": _nanoseconds(began), "end_time": _nanoseconds(over)}
        with telemetry.root_span(
            run.workflow_name, None, own, SpanKind.SERVER, attributes, **times, is_given_out=True
        ) as span:
            span.set_attribute(semconv.PIPELINE_RESULT, semconv.SUCCESS if succeeded else semconv.FAILURE)
            if not succeeded:
                span.set_status(Status(StatusCode.ERROR))
        waiting = budget.RUN_COLLECTOR.for_bus(settings.event_flush_timeout)
        with at_most(waiting, budget.COLLECTOR) as seconds, telemetry.flushing(seconds):
            pass


def _nanoseconds(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1e6) * 1000
