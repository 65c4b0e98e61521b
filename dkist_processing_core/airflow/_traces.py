"""
The trace of a run in Airflow: derived from the run, or Airflow's own trace if Airflow traces.

This module uses only the standard library: Airflow's task runner renders templates right before the launcher starts.
Not here: spans (tracing).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dkist_processing_core.airflow._context import moment, run_of_instance
from dkist_processing_core.identity.trace_context import (
    derived_run_span_id,
    derived_trace_id,
    format_time,
    format_traceparent,
    parse_traceparent,
)

if TYPE_CHECKING:
    from dkist_processing_core.airflow._workflow import ExportedWorkflow
    from dkist_processing_core.identity import Run

# Only a module that Airflow's process has already loaded is used: the query must not load one.
_CONFIGURATIONS = ("airflow.sdk.configuration", "airflow.configuration")


def traceparent(workflow: ExportedWorkflow, ti: object, dag_run: object) -> str:
    """Return the parent context of an attempt's span, in W3C Trace Context format."""
    run = run_of_instance(workflow, ti, dag_run)
    engines = engines_parent(ti)
    # Airflow's flag is 00 while its own exporter is off, and an unsampled parent suppresses all spans below it.
    trace_id, span_id = engines or (derived_trace_id(run), root_span_id(run, dag_run))
    return format_traceparent(trace_id, span_id)


def tracestate(ti: object) -> str:
    """Return the state that belongs to `traceparent`."""
    return "" if engines_parent(ti) is None else _carried(ti, "tracestate")


def root_span_id(run: Run, dag_run: object) -> int:
    """
    Return the id of the root span of a run in Airflow, always derived from the run and its start.

    A worker cannot distinguish a run that was cleared after its end, which begins again, from a run that was cleared
    before its end: Airflow counts both as clears, and only the first has a new start.
    """
    began = moment(dag_run, "start_date")
    return derived_run_span_id(run, "" if began is None else format_time(began))


def engines_parent(ti: object) -> tuple[int, int] | None:
    """Return Airflow's trace and span if its tracing is on; None if it is off, when Airflow still fills a carrier."""
    return parse_traceparent(_carried(ti, "traceparent")) if _engine_traces() else None


def _carried(ti: object, name: str) -> str:
    carrier: Any = getattr(ti, "context_carrier", None)
    found = carrier.get(name) if isinstance(carrier, dict) else None
    return found if isinstance(found, str) else ""


def _engine_traces() -> bool:
    for name in _CONFIGURATIONS:
        settings: Any = getattr(sys.modules.get(name), "conf", None)
        if settings is not None:
            return bool(settings.getboolean("traces", "otel_on", fallback=False))
    return False
