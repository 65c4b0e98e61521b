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

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
DELTA = "delta"
_DELTA_COUNTERS = frozenset({DELTA, "lowmemory"})
_VALUE_FIELDS = ((bool, "bool_value"), (int, "int_value"), (float, "double_value"))


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
    # As the SDK is, these modules are imported only where something is exported.
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.metrics.v1 import metrics_pb2  # noqa: PLC0415

    request, now = ExportMetricsServiceRequest(), time.time_ns()
    of_resource = request.resource_metrics.add()
    _fill(of_resource.resource.attributes, resource.attributes)
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = semconv.SCOPE
    metric = of_scope.metrics.add(
        name=semconv.EXECUTED, unit=semconv.EXECUTED_UNIT, description=semconv.EXECUTED_MEANING
    )
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = (
        metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
        if preference.lower() in _DELTA_COUNTERS
        else metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    )
    # An interval of no length is no interval: the increment is that of the nanosecond before.
    point = metric.sum.data_points.add(start_time_unix_nano=now - 1, time_unix_nano=now, as_int=1)
    _fill(point.attributes, attributes)
    body: bytes = request.SerializeToString()
    return body


def _fill(pairs: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        found = pairs.add(key=str(name)).value
        field = next((field for kind, field in _VALUE_FIELDS if isinstance(value, kind)), "string_value")
        setattr(found, field, str(value) if field == "string_value" else value)
