"""
The encoding of spans, log records and counts, against the SDK's encoders and the generated classes of OTLP.

Not here: whether they arrive (test_tracing.py, test_journalled_telemetry.py).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from dkist_processing_core.tracing._encoding import log_record, request, spans_request
from dkist_processing_core.tracing._executed import executed_once

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 127, 128, -1]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), TEXTS, st.binary(max_size=200))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
TIMES = st.none() | st.integers(0, 2**64 - 1)
STATES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), st.sampled_from(["a", "b:c"]), max_size=3
)


@st.composite
def attributes(draw: st.DrawFn) -> BoundedAttributes:
    """
    Return attributes as the SDK keeps them, some of which it has dropped.
    """
    pairs = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    return BoundedAttributes(draw(st.sampled_from([None, 0, 2])), pairs)


def resources() -> st.SearchStrategy[Resource]:
    """
    Return resources, with or without a schema.
    """
    return st.builds(Resource, st.dictionaries(NAMES, VALUES, max_size=3), st.sampled_from(["", "https://schema"]))


def scopes() -> st.SearchStrategy[InstrumentationScope]:
    """
    Return scopes of instrumentation.
    """
    return st.builds(
        InstrumentationScope,
        TEXTS,
        st.none() | TEXTS,
        st.none() | TEXTS,
        st.none() | st.dictionaries(NAMES, VALUES, max_size=2),
    )


def contexts(states: st.SearchStrategy[dict[str, str]] = STATES) -> st.SearchStrategy[SpanContext]:
    """
    Return contexts of spans, here or in another process.
    """
    return st.builds(
        SpanContext,
        st.integers(1, 2**128 - 1),
        st.integers(1, 2**64 - 1),
        st.booleans(),
        st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
        states.map(lambda pairs: TraceState(list(pairs.items()))),
    )


def statuses() -> st.SearchStrategy[Status]:
    """
    Return statuses, of which only errors have a description.
    """
    return st.sampled_from([Status(), Status(StatusCode.OK)]) | st.builds(
        Status, st.just(StatusCode.ERROR), st.none() | TEXTS
    )


@st.composite
def spans(draw: st.DrawFn) -> ReadableSpan:
    """
    Return a span that has ended.
    """
    return ReadableSpan(
        draw(TEXTS),
        draw(contexts()),
        draw(st.none() | contexts()),
        draw(st.sampled_from(RESOURCES)),
        draw(attributes()),
        draw(st.lists(st.builds(Event, TEXTS, attributes(), st.integers(0, 2**64 - 1)), max_size=2)),
        draw(st.lists(st.builds(Link, contexts(st.just({})), attributes()), max_size=2)),
        draw(st.sampled_from(SpanKind)),
        status=draw(statuses()),
        start_time=draw(TIMES),
        end_time=draw(TIMES),
        instrumentation_scope=draw(st.sampled_from(SCOPES)),
    )


CONTEXT = SpanContext(1, 2, is_remote=False)
RESOURCES = [Resource({"service.name": "a", "numbers": (1, 2)}), Resource({}, "https://schema")]
SCOPES = [None, InstrumentationScope("a", "1", "https://schema", {"b": True}), InstrumentationScope("b")]


def as_is(text: str) -> str:
    """
    Redact nothing.
    """
    return text


@given(st.lists(spans(), max_size=4))
def test_spans_are_encoded_as_by_the_sdk(found: list[ReadableSpan]) -> None:
    """
    Any spans are the same bytes.
    """
    assert spans_request(found, as_is) == encode_spans(found).SerializeToString()


@given(resources(), scopes(), contexts() | st.just(trace.INVALID_SPAN_CONTEXT), TEXTS, attributes())
def test_log_records_are_encoded_as_by_the_sdk(
    resource: Resource, scope: InstrumentationScope, span: SpanContext, body: str, pairs: BoundedAttributes
) -> None:
    """
    Any record is the same bytes, in a span or without one.
    """
    of_sdk = LogRecord(
        timestamp=1,
        observed_timestamp=2,
        context=trace.set_span_in_context(NonRecordingSpan(span)),
        severity_text="WARNING",
        severity_number=SeverityNumber.WARN,
        body=body,
        attributes=pairs,
    )
    ours = log_record(
        timestamp=1,
        observed=2,
        severity=SeverityNumber.WARN.value,
        severity_text="WARNING",
        body=body,
        attributes_of_record=pairs,
        dropped=pairs.dropped,
        span=span,
    )

    expected = encode_logs([ReadableLogRecord(of_sdk, resource, scope)]).SerializeToString()
    assert request(resource, [(scope, [ours])]) == expected


@pytest.mark.parametrize(
    ("preference", "temporality"), [("delta", "DELTA"), ("LowMemory", "DELTA"), ("cumulative", "CUMULATIVE")]
)
def test_the_increment_of_the_counter_is_a_metric_of_otlp(preference: str, temporality: str) -> None:
    """
    It is a monotonic sum with one point.
    """
    counted = {"task.name": "A", "recipe.run.id": 1}

    found = ExportMetricsServiceRequest.FromString(executed_once(RESOURCES[0], counted, preference))

    (metric,) = found.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.sum.data_points
    assert (metric.name, metric.sum.is_monotonic) == ("dkist.processing.tasks.executed", True)
    assert AggregationTemporality.Name(metric.sum.aggregation_temporality).endswith(f"_{temporality}")
    assert point.as_int == 1
    assert point.time_unix_nano - point.start_time_unix_nano == 1
    assert {pair.key: pair.value.string_value or pair.value.int_value for pair in point.attributes} == counted
    assert [pair.key for pair in found.resource_metrics[0].resource.attributes] == ["service.name", "numbers"]


class Odd:
    """
    A value that OTLP has no type for.
    """

    def __str__(self) -> str:
        """
        Return a text.
        """
        return "odd"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2**63, str(2**63)), (-(2**63) - 1, str(-(2**63) - 1)), (Odd(), "odd"), ("a\ud800b\udfff", "a�b�"), ("🔭", "🔭")],
)
def test_a_value_that_otlp_cannot_hold_is_encoded_as_text(value: object, text: str) -> None:
    """
    An integer beyond 64 bits, an object, and lone surrogates.
    """
    span = ReadableSpan(text, CONTEXT, attributes={"value": value})  # type: ignore[dict-item]

    found = ExportTraceServiceRequest.FromString(spans_request([span], as_is))

    (attribute,) = found.resource_spans[0].scope_spans[0].spans[0].attributes
    assert attribute.value.string_value == text


def test_a_link_has_its_trace_state() -> None:
    """
    The SDK leaves it out.
    """
    linked = SpanContext(3, 4, is_remote=True, trace_state=TraceState([("vendor", "a"), ("other", "b")]))

    found = ExportTraceServiceRequest.FromString(
        spans_request([ReadableSpan("name", CONTEXT, links=[Link(linked)])], as_is)
    )

    assert found.resource_spans[0].scope_spans[0].spans[0].links[0].trace_state == "vendor=a,other=b"


def test_all_texts_of_a_span_that_its_author_writes_are_redacted() -> None:
    """
    Those in names, lists, maps and links too; the names of attributes have none.
    """
    nested = {"list": ["secret"], "map": {"a": "secret"}, "text": "secret"}
    span = ReadableSpan(
        "get secret",
        CONTEXT,
        attributes=nested,  # type: ignore[arg-type]
        events=[Event("retry of secret", nested)],  # type: ignore[arg-type]
        links=[Link(CONTEXT, nested)],  # type: ignore[arg-type]
        status=Status(StatusCode.ERROR, "secret"),
    )

    encoded = spans_request([span], lambda text: text.replace("secret", "[redacted]"))

    assert b"secret" not in encoded
    assert encoded.count(b"[redacted]") == 12
