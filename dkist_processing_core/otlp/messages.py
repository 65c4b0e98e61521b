"""
The messages of the protocol as classes of protobuf: a collector's answers, and a request that has to be halved.

This module imports protobuf, so it is imported for the first answer that says more than success. Not here: what the
answers mean (answers), and the encoding of requests (tracing).
"""

import itertools
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]  # the library has no annotations
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # as above
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from dkist_processing_core.otlp.destination import Signal

_NANOSECONDS = 1e9
_REQUESTS: dict[Signal, Any] = {
    "traces": traces.ExportTraceServiceRequest,
    "metrics": metrics.ExportMetricsServiceRequest,
    "logs": logs.ExportLogsServiceRequest,
}
_RESPONSES: dict[Signal, Any] = {
    "traces": traces.ExportTraceServiceResponse,
    "metrics": metrics.ExportMetricsServiceResponse,
    "logs": logs.ExportLogsServiceResponse,
}
_REJECTED = {"traces": "rejected_spans", "metrics": "rejected_data_points", "logs": "rejected_log_records"}
# The repeated fields that lead to the items of a request.
_LEVELS = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}


def partial_success(signal: Signal, answer: bytes, *, is_json: bool = False) -> tuple[int, str] | None:
    """Return how many items a collector has rejected, and its message, by its answer; None if it cannot be read."""
    response = _RESPONSES[signal]()
    try:
        if is_json:
            json_format.Parse(answer, response, ignore_unknown_fields=True)
        else:
            response.ParseFromString(answer)
    except (DecodeError, json_format.ParseError):
        return None
    found = response.partial_success
    return max(0, getattr(found, _REJECTED[signal])), found.error_message


def message_of(status: bytes) -> str | None:
    """Return the message in a serialized `Status`; None if it is something else."""
    try:
        return str(Status.FromString(status).message)
    except DecodeError:
        return None


def retry_delay(status: bytes | None, info: bytes | None) -> float | None:
    """Return the seconds in a serialized `RetryInfo`, or in that of a serialized `Status`; None without one."""
    found = RetryInfo()
    try:
        if info is not None:
            found.ParseFromString(info)
        elif status is None or not any(detail.Unpack(found) for detail in Status.FromString(status).details):
            return None
    except DecodeError:
        return None
    return max(0.0, float(found.retry_delay.ToNanoseconds() / _NANOSECONDS))


def halves(signal: Signal, body: bytes) -> list[tuple[int, bytes]]:
    """
    Return a serialized request in two halves, each with its number of items; [] if it has only one item.

    Items are spans, metrics and log records; a metric counts as many items as it has points.
    """
    whole = _REQUESTS[signal].FromString(body)
    count = sum(len(items) for items in _items_of(signal, whole))
    if count <= 1:
        return []
    parts = []
    for kept in (range(count // 2), range(count // 2, count)):
        part = type(whole).FromString(body)
        numbers = itertools.count()
        for items in _items_of(signal, part):
            numbered = [(next(numbers), item) for item in items]
            rest = [item.SerializeToString() for number, item in numbered if number in kept]
            del items[:]
            for item in rest:
                items.add().ParseFromString(item)
        parts.append((_count(signal, part), part.SerializeToString()))
    return parts


def _items_of(signal: Signal, request: Any) -> list[Any]:
    groups, scopes, items = _LEVELS[signal]
    return [getattr(scope, items) for group in getattr(request, groups) for scope in getattr(group, scopes)]


def _count(signal: Signal, request: Any) -> int:
    each = (item for items in _items_of(signal, request) for item in items)
    return sum(1 if signal != "metrics" else len(getattr(item, item.WhichOneof("data")).data_points) for item in each)
