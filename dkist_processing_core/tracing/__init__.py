"""
Spans, metrics and log records of a process: one trace per run, with ids derived from what is traced.

Nothing is exported, and the OpenTelemetry SDK is not even imported, unless the settings name somewhere to export to.
Not here: names (semconv), and what is traced (lifecycle, local, launcher).
"""

from dkist_processing_core.tracing._ids import (
    Carrier,
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
    run_parent,
    sampled,
    to_traceparent,
)
from dkist_processing_core.tracing._setup import SIGNALS, Signal, endpoint_of, open_telemetry
from dkist_processing_core.tracing._telemetry import Telemetry

__all__ = [
    "SIGNALS",
    "Carrier",
    "Signal",
    "Telemetry",
    "derived_attempt_span_id",
    "derived_run_span_id",
    "derived_trace_id",
    "endpoint_of",
    "open_telemetry",
    "run_parent",
    "sampled",
    "to_traceparent",
]
