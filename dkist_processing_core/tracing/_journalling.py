"""
The SDK's span processor and metric exporter that append to the journal of telemetry, and the loggers that do so.

Not here: the batches (_batches), the encoding (_encoding), and the exporters that send to a collector or a console
(_exporting).
"""

# ruff: noqa: PLC0415 - the SDK is imported when a provider is created
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context

from dkist_processing_core.text.redaction import redactor
from dkist_processing_core.tracing._batches import Batch, Batches, batch_size
from dkist_processing_core.tracing._encoding import log_record, request, spans_request

if TYPE_CHECKING:
    from opentelemetry._logs import Logger, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits
    from opentelemetry.sdk.resources import Resource

_LIMITS = frozenset(
    f"OTEL_{prefix}ATTRIBUTE_{limit}_LIMIT" for prefix in ("", "LOGRECORD_") for limit in ("COUNT", "VALUE_LENGTH")
)


def span_processor(batches: Batches, secrets: Collection[str]) -> Any:
    """Return a processor that appends sampled spans when they end; neither `secrets` nor those of texts are stored."""
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    def encode(spans: Sequence[ReadableSpan]) -> bytes:
        return spans_request(spans, redactor(also=secrets))

    batch = batches.add("traces", encode, batch_size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"))

    class JournallingProcessor(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            # A fork that leaves the blocks of its parent process ends spans that its parent ends as well.
            if span.context.trace_flags.sampled and (span.start_time or 0) >= batches.forked_at:
                batch.add(span)

        def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
            batches.append()
            return not batches.journal.is_pending

        def shutdown(self) -> None:
            batches.append()

    return JournallingProcessor()


class JournallingLoggerProvider:
    """
    A provider of loggers that append records to the journal of telemetry.

    It has the part of the SDK's interface that is used here: the import of the SDK's own provider takes longer than
    the work of a short task.
    """

    def __init__(self, batches: Batches, resource: "Resource", beside: "LoggerProvider | None") -> None:
        """
        Read the limits of records.

        Args:
            batches: Appends the records.
            resource: The resource of all records.
            beside: A provider whose loggers get each record as well.
        """
        self._batches = batches
        self._resource = resource
        self._beside = beside
        self._limits = _limits_of_records()

    def get_logger(self, name: str) -> "JournallingLogger":
        """Return the logger of a scope with this name."""
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        def encode(records: Sequence[bytes]) -> bytes:
            return request(self._resource, [(InstrumentationScope(name), records)])

        batch = self._batches.add("logs", encode, batch_size("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"))
        return JournallingLogger(batch, self._limits, None if self._beside is None else self._beside.get_logger(name))

    def force_flush(self) -> bool:
        """Append all records."""
        self._batches.append()
        return (self._beside is None or self._beside.force_flush()) and not self._batches.journal.is_pending


class JournallingLogger:
    """A logger of such a provider."""

    def __init__(self, batch: Batch, limits: "LogRecordLimits | None", beside: "Logger | None") -> None:
        """Store the batch, the limits of records, and a logger that gets each record as well."""
        self._batch = batch
        self._limits = limits
        self._beside = beside

    def emit(
        self,
        *,
        timestamp: int,
        context: Context,
        severity_text: str,
        severity_number: "SeverityNumber",
        body: str,
        attributes: Mapping[str, Any],
    ) -> None:
        """Encode a record now, since its values may change, and append it in a moment."""
        limits = self._limits
        kept = (
            attributes
            if limits is None
            else BoundedAttributes(
                limits.max_log_record_attributes, attributes, max_value_len=limits.max_log_record_attribute_length
            )
        )
        self._batch.add(
            log_record(
                timestamp=timestamp,
                observed=time.time_ns(),
                severity=severity_number.value,
                severity_text=severity_text,
                body=body,
                attributes_of_record=kept,
                dropped=len(attributes) - len(kept),
                span=trace.get_current_span(context).get_span_context(),
            )
        )
        if self._beside is not None:
            self._beside.emit(
                timestamp=timestamp,
                context=context,
                severity_text=severity_text,
                severity_number=severity_number,
                body=body,
                attributes=attributes,
            )


def _limits_of_records() -> "LogRecordLimits | None":
    """
    Return the limits that the variables set; None if they set none, since a record has few attributes.

    Raises:
        ValueError: A variable has an unusable value.
    """
    if _LIMITS.isdisjoint(os.environ):
        return None
    from opentelemetry.sdk._logs import LogRecordLimits

    return LogRecordLimits()


def metric_exporter(batches: Batches, secrets: Collection[str]) -> Any:
    """Return an exporter that appends metric points; neither `secrets` nor those of their attributes are stored."""
    from opentelemetry.exporter.otlp.proto.common._internal.metrics_encoder import OTLPMetricExporterMixin
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

    class JournallingExporter(MetricExporter, OTLPMetricExporterMixin):
        def __init__(self) -> None:
            # It reads the variables on temporality and aggregation, as in the SDK's own exporters.
            self._common_configuration()

        def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002 - the SDK's signature
            points = sum(
                len(metric.data.data_points)
                for of_resource in metrics_data.resource_metrics
                for of_scope in of_resource.scope_metrics
                for metric in of_scope.metrics
            )
            if points:
                encoded = encode_metrics(metrics_data)
                _redact_points(encoded, redactor(also=secrets))
                batches.journal.keep("metrics", points, encoded.SerializeToString())
                batches.journal.append_pending()
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
            return not batches.journal.is_pending

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
            pass

    return JournallingExporter()


def _redact_points(request: Any, redact: Callable[[str], str]) -> None:
    """Redact the texts in the attributes of a request of metrics, which an author's instruments give."""
    metrics = (each for of in request.resource_metrics for scope in of.scope_metrics for each in scope.metrics)
    for metric in metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            for pairs in (point.attributes, *(each.filtered_attributes for each in point.exemplars)):
                for pair in pairs:
                    _redact_value(pair.value, redact)


def _redact_value(value: Any, redact: Callable[[str], str]) -> None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        value.string_value = redact(value.string_value)
    elif kind == "array_value":
        for each in value.array_value.values:
            _redact_value(each, redact)
