"""
The spans, log records and counts of this process as requests of OTLP, which the journal of telemetry holds.

Numbers of fields are those of https://github.com/open-telemetry/opentelemetry-proto, whose classes are not used here:
they need the library protobuf (_protobuf). Not here: metrics of the author, which the SDK collects and encodes
(_journalling).
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dkist_processing_core.tracing._protobuf import (
    chosen_double,
    chosen_fixed_64,
    chosen_integer,
    data,
    fixed_32,
    fixed_64,
    integer,
    message,
    text,
    utf8,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

_Redact = Callable[[str], str]
_LEAST_INTEGER, _MOST_INTEGER = -(1 << 63), (1 << 63) - 1
# https://github.com/open-telemetry/opentelemetry-proto, `SpanFlags`: whether it is known that the parent is remote.
_IS_REMOTE_KNOWN, _IS_REMOTE = 0x100, 0x200
# The numbers of `Span.SpanKind`, which begin with that of an unspecified kind.
_FIRST_KIND = 1
_LONGEST_CACHED = 200
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
DELTA_NUMBER, CUMULATIVE_NUMBER = 1, 2
"""The numbers of `AggregationTemporality`."""


def _as_is(value: str) -> str:
    return value


def spans_request(spans: Iterable["ReadableSpan"], redact: _Redact) -> bytes:
    """
    Return spans as a serialized request.

    Args:
        spans: Spans of the SDK that have ended.
        redact: Redacts a text: an author's tracer and an instrumentor record exceptions and URLs, also in names.
    """
    # By id: a resource's own hash takes longer than the encoding of a span.
    resources: dict[int, Resource] = {}
    encoded: dict[tuple[int, InstrumentationScope | None], list[bytes]] = {}
    for span in spans:
        resources[id(span.resource)] = span.resource
        encoded.setdefault((id(span.resource), span.instrumentation_scope), []).append(_span(span, redact))
    return b"".join(
        request(resource, [(scope, items) for (of, scope), items in encoded.items() if of == key])
        for key, resource in resources.items()
    )


def request(resource: "Resource", scopes: Iterable[tuple["InstrumentationScope | None", Iterable[bytes]]]) -> bytes:
    """Return a serialized request with encoded items by their scopes; the form is the same for each signal."""
    groups = b"".join(
        message(2, message(1, _scope(scope)) + b"".join(message(2, item) for item in items) + _schema_of(scope))
        for scope, items in scopes
    )
    return message(1, message(1, attributes(1, resource.attributes)) + groups + _schema_of(resource))


def _scope(scope: "InstrumentationScope | None") -> bytes:
    if scope is None:
        return b""
    return text(1, scope.name) + text(2, scope.version) + attributes(3, getattr(scope, "attributes", None))


def _schema_of(owner: Any) -> bytes:
    return text(3, getattr(owner, "schema_url", None))


def _span(span: "ReadableSpan", redact: _Redact) -> bytes:
    context: SpanContext = span.get_span_context()  # type: ignore[assignment] # always given by the SDK
    return b"".join(
        (
            data(1, _trace_id(context)),
            data(2, _span_id(context)),
            text(3, _trace_state(context)),
            data(4, _span_id(span.parent)) if span.parent else b"",
            text(5, redact(span.name)),
            integer(6, span.kind.value + _FIRST_KIND),
            fixed_64(7, span.start_time),
            fixed_64(8, span.end_time),
            attributes(9, span.attributes, redact),
            integer(10, span.dropped_attributes),
            *(message(11, _event(event, redact)) for event in span.events),
            integer(12, span.dropped_events),
            *(message(13, _link(link, redact)) for link in span.links),
            integer(14, span.dropped_links),
            message(15, text(2, redact(span.status.description or "")) + integer(3, span.status.status_code.value)),
            fixed_32(16, _flags(span.parent)),
        )
    )


def _event(event: Any, redact: _Redact) -> bytes:
    return (
        fixed_64(1, event.timestamp)
        + text(2, redact(event.name))
        + attributes(3, event.attributes, redact)
        + integer(4, event.dropped_attributes)
    )


def _link(link: Any, redact: _Redact) -> bytes:
    return (
        data(1, _trace_id(link.context))
        + data(2, _span_id(link.context))
        + text(3, _trace_state(link.context))
        + attributes(4, link.attributes, redact)
        + integer(5, link.dropped_attributes)
        + fixed_32(6, _flags(link.context))
    )


def _flags(parent: "SpanContext | None") -> int:
    return _IS_REMOTE_KNOWN | (_IS_REMOTE if parent is not None and parent.is_remote else 0)


def _trace_id(context: "SpanContext") -> bytes:
    return context.trace_id.to_bytes(_TRACE_ID_BYTES, "big")


def _span_id(context: "SpanContext") -> bytes:
    return context.span_id.to_bytes(_SPAN_ID_BYTES, "big")


def _trace_state(context: "SpanContext") -> str:
    return ",".join(f"{key}={value}" for key, value in context.trace_state.items()) if context.trace_state else ""


def log_record(
    *,
    timestamp: int,
    observed: int,
    severity: int,
    severity_text: str,
    body: str,
    attributes_of_record: Mapping[str, Any],
    dropped: int,
    span: "SpanContext",
) -> bytes:
    """Return an encoded log record, which belongs to a span if that is valid."""
    return b"".join(
        (
            fixed_64(1, timestamp),
            integer(2, severity),
            text(3, severity_text),
            message(5, _value(body, _as_is)),
            attributes(6, attributes_of_record),
            integer(7, dropped),
            fixed_32(8, span.trace_flags),
            data(9, _trace_id(span)) if span.trace_id else b"",
            data(10, _span_id(span)) if span.span_id else b"",
            fixed_64(11, observed),
        )
    )


def increment(
    name: str, unit: str, meaning: str, point_attributes: Mapping[str, Any], *, now: int, temporality: int
) -> bytes:
    """Return an encoded metric: a monotonic sum with one point, an increment by 1."""
    # An interval of no length is no interval: the increment is that of the nanosecond before.
    point = fixed_64(2, now - 1) + fixed_64(3, now) + chosen_fixed_64(6, 1) + attributes(7, point_attributes)
    total = message(1, point) + integer(2, temporality) + integer(3, value=True)
    return text(1, name) + text(2, meaning) + text(3, unit) + message(7, total)


def attributes(number: int, pairs: Mapping[str, Any] | None, redact: _Redact = _as_is) -> bytes:
    """Return a repeated field of attributes."""
    if not pairs:
        return b""
    return b"".join(_attribute(number, str(name), value, redact) for name, value in pairs.items())


def _attribute(number: int, name: str, value: Any, redact: _Redact) -> bytes:
    if type(value) is str:
        value, redact = redact(value), _as_is
        if len(value) <= _LONGEST_CACHED:
            return _cached_attribute(number, name, value)
    return message(number, text(1, name) + message(2, _value(value, redact)))


@functools.lru_cache(maxsize=256)
def _cached_attribute(number: int, name: str, value: str) -> bytes:
    """Return an attribute with a short text; those of the identity are the same for each record and span."""
    return message(number, text(1, name) + message(2, _value(value, _as_is)))


def _value(value: Any, redact: _Redact) -> bytes:  # noqa: PLR0911 - one return for each type
    if isinstance(value, str):
        return message(1, utf8(redact(value)))
    if value is None:
        return b""
    if isinstance(value, bool):
        return chosen_integer(2, value)
    # https://opentelemetry.io/docs/specs/otel/common/attribute-type-mapping/: others are texts.
    if isinstance(value, int) and _LEAST_INTEGER <= value <= _MOST_INTEGER:
        return chosen_integer(3, value)
    if isinstance(value, float):
        return chosen_double(4, value)
    if isinstance(value, bytes):
        return message(7, value)
    if isinstance(value, Sequence):
        return message(5, b"".join(message(1, _value(each, redact)) for each in value))
    if isinstance(value, Mapping):
        return message(6, attributes(1, value, redact))
    return message(1, utf8(redact(str(value))))
