"""
Spans, metrics and log records of a process: one trace per run, with ids derived from the traced subject
(trace_context).

Nothing is exported, and the OpenTelemetry SDK is not even imported, unless the settings name a destination.
Not here: names (semconv), and the traced code (attempt, local, launcher).
"""

from dkist_processing_core.tracing._config_file import config_file_of, problem_of_config_file, warn_of_config_file
from dkist_processing_core.tracing._open_spans import end_open_spans
from dkist_processing_core.tracing._propagation import Carrier, derived_span, run_parent, sampled, to_traceparent
from dkist_processing_core.tracing._setup import open_telemetry
from dkist_processing_core.tracing._telemetry import Telemetry

__all__ = [
    "Carrier",
    "Telemetry",
    "config_file_of",
    "derived_span",
    "end_open_spans",
    "open_telemetry",
    "problem_of_config_file",
    "run_parent",
    "sampled",
    "to_traceparent",
    "warn_of_config_file",
]
