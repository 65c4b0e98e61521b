"""
The counter of executed tasks of release 7.x, encoded without the SDK's metrics, whose import takes longer than a span.

It is written when an attempt starts, as in 7.x, so that a killed attempt is counted too. Each attempt is a process of
its own, so a total cannot be kept there: the increment has delta temporality, by which a collector adds up the
processes. If cumulative temporality is requested, each attempt is a separate series. Not here: the author's meters
(_providers).
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dkist_processing_core import semconv
from dkist_processing_core.tracing._encoding import CUMULATIVE_NUMBER, DELTA_NUMBER, increment, request

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
DELTA = "delta"
_DELTA_COUNTERS = frozenset({DELTA, "lowmemory"})


def counted_attributes(attributes: Mapping[str, Any], attempt_id: str, temporality: str) -> dict[str, Any]:
    """
    Return the attributes with which an attempt is counted.

    Args:
        attributes: Those of the task's measurements.
        attempt_id: The identity of the attempt.
        temporality: The requested temporality.
    """
    is_delta = temporality.lower() in _DELTA_COUNTERS
    return dict(attributes) | ({} if is_delta else {semconv.PIPELINE_TASK_RUN_ID: attempt_id})


def executed_once(resource: "Resource", attributes: Mapping[str, Any], preference: str) -> bytes:
    """Return a serialized request with the counter's increment by one attempt."""
    # As the SDK is, this module is imported only where something is exported.
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    counter = increment(
        semconv.EXECUTED,
        semconv.EXECUTED_UNIT,
        semconv.EXECUTED_MEANING,
        attributes,
        now=time.time_ns(),
        temporality=DELTA_NUMBER if preference.lower() in _DELTA_COUNTERS else CUMULATIVE_NUMBER,
    )
    return request(resource, [(InstrumentationScope(semconv.SCOPE), [counter])])
