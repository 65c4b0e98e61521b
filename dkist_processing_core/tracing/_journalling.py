"""
The SDK's span processor, log record processor and metric exporter that append to the journal of telemetry.

Not here: the batches (_batches), and the exporters that send to a collector or a console (_exporting).
"""

# ruff: noqa: PLC0415 - the SDK is imported when a provider is created
import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any

from opentelemetry.context import Context

from dkist_processing_core.text.redaction import redactor
from dkist_processing_core.tracing._batches import Batches, batch_size


def span_processor(batches: Batches, secrets: Collection[str]) -> Any:
    """Return a processor that appends sampled spans when they end; neither `secrets` nor those of texts are stored."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    def encode(spans: Sequence[ReadableSpan]) -> Any:
        return _redacted(encode_spans(spans), redactor(also=secrets))

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


def _redacted(request: Any, redact: Callable[[str], str]) -> Any:
    """Return a request with redacted texts: an author's tracer and an instrumentor record exceptions and URLs."""
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if span.status.message:
                    span.status.message = redact(span.status.message)
                for attributes in (span.attributes, *(event.attributes for event in span.events)):
                    for attribute in attributes:
                        text = attribute.value.string_value
                        if text:
                            attribute.value.string_value = redact(text)
    return request


def log_record_processor(batches: Batches) -> Any:
    """Return a processor that appends log records."""
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
    from opentelemetry.sdk.resources import Resource

    batch = batches.add("logs", encode_logs, batch_size("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"))

    class JournallingProcessor(LogRecordProcessor):
        def on_emit(self, log_record: ReadWriteLogRecord) -> None:
            # As in the SDK's own processor: the record must not keep the context of the author's code.
            record = copy.copy(log_record.log_record)
            record.context = Context()
            batch.add(
                ReadableLogRecord(
                    log_record=record,
                    resource=log_record.resource or Resource.create({}),
                    instrumentation_scope=log_record.instrumentation_scope,
                    limits=log_record.limits,
                )
            )

        def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
            batches.append()
            return not batches.journal.is_pending

        def shutdown(self) -> None:
            batches.append()

    return JournallingProcessor()


def metric_exporter(batches: Batches) -> Any:
    """Return an exporter that appends metric points."""
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
                batches.journal.keep("metrics", points, encode_metrics(metrics_data).SerializeToString())
                batches.journal.append_pending()
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
            return not batches.journal.is_pending

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
            pass

    return JournallingExporter()
