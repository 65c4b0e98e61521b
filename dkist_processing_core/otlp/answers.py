"""
The messages of the protocol that a delivery reads: a collector's answers, and a request that has to be halved.

They are the same over HTTP and gRPC. This module imports protobuf, so it is imported with the first delivery. Not
here: sending (over_http, over_grpc), and the encoding of requests (tracing).
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
from dkist_processing_core.otlp.outcome import Delivered
from dkist_processing_core.text import clean_line

PROTOBUF = "application/x-protobuf"
_LONGEST_MESSAGE = 200
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


def accepted(signal: Signal, answer: bytes) -> Delivered:
    """Return what a collector has accepted, by its answer to a successful request."""
    try:
        return _delivered(signal, _RESPONSES[signal].FromString(answer))
    except DecodeError:
        # The request was successful by its status, which decides.
        return Delivered(message="its answer cannot be read")


def accepted_by(signal: Signal, answer: bytes, content_type: str) -> Delivered | None:
    """
    Return what an HTTP server has accepted, by its answer with a status of success; None if it is no collector.

    A proxy, or a web server at a wrong path, answers with a page. A collector answers in the encoding of the request;
    JSON and an empty answer are tolerated.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not answer or kind == PROTOBUF:
        return accepted(signal, answer)
    response = _RESPONSES[signal]()
    try:
        if kind == "application/json":
            json_format.Parse(answer, response, ignore_unknown_fields=True)
        elif kind:
            return None
        else:
            response.ParseFromString(answer)
    except (DecodeError, json_format.ParseError):
        return None
    return _delivered(signal, response)


def _delivered(signal: Signal, response: Any) -> Delivered:
    found = response.partial_success
    return Delivered(max(0, getattr(found, _REJECTED[signal])), one_line(found.error_message))


def message_of(status: bytes) -> str | None:
    """Return the message in a serialized `Status`; None if it is something else."""
    try:
        return one_line(Status.FromString(status).message)
    except DecodeError:
        return None


def retry_delay(status: bytes | None, info: bytes | None = None) -> float | None:
    """
    Return the seconds in the `RetryInfo` of a gRPC error; None without one.

    Args:
        status: The serialized `Status` of the error.
        info: The serialized `RetryInfo` itself, if the collector has sent it on its own.
    """
    found = RetryInfo()
    try:
        if info is not None:
            found.ParseFromString(info)
        elif status is None or not any(detail.Unpack(found) for detail in Status.FromString(status).details):
            return None
    except DecodeError:
        return None
    return max(0.0, float(found.retry_delay.ToNanoseconds() / _NANOSECONDS))


def one_line(text: str) -> str:
    """Return the beginning of a collector's message, which may have any length, as one line."""
    return clean_line(" ".join(text[: 2 * _LONGEST_MESSAGE].split()))[:_LONGEST_MESSAGE]


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
