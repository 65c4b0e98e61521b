"""
The SDK's batch processors, which send spans and log records to a collector or a console by a thread of this process.

They are used for a console, and for a collector if there is no journal of telemetry. Not here: the exporter of a
collector (_otlp).
"""

# ruff: noqa: PLC0415 - the SDK is imported when a provider is created
from typing import Any

from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing._handover import Handover
from dkist_processing_core.tracing._otlp import otlp_exporter


def span_processor(settings: Settings, exporter: str) -> Any:
    """Return a processor that exports spans to `console` or `otlp`."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    class ReentrantProcessor(BatchSpanProcessor):
        """Also accepts spans that a signal handler ends while it accepts another item."""

        def __init__(self, exporter: Any) -> None:
            super().__init__(exporter)
            self._handover = Handover(super().on_end)

        def on_end(self, span: ReadableSpan) -> None:
            self._handover.give(span)

        def force_flush(self, timeout_millis: int | None = None) -> bool:
            self._handover.hand_over()
            return super().force_flush(timeout_millis)

    return ReentrantProcessor(ConsoleSpanExporter() if exporter == "console" else otlp_exporter(settings, "traces"))


def log_record_processor(settings: Settings, exporter: str) -> Any:
    """Return a processor that exports log records to `console` or `otlp`."""
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

    class ReentrantProcessor(BatchLogRecordProcessor):
        """Also accepts records that a signal handler logs while it accepts another item."""

        def __init__(self, exporter: Any) -> None:
            super().__init__(exporter)
            self._handover = Handover(super().on_emit)

        def on_emit(self, log_record: Any) -> None:
            self._handover.give(log_record)

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            self._handover.hand_over()
            return super().force_flush(timeout_millis)

    return ReentrantProcessor(ConsoleLogRecordExporter() if exporter == "console" else otlp_exporter(settings, "logs"))


def metric_exporter(settings: Settings, exporter: str) -> Any:
    """Return an exporter of metrics to `console` or `otlp`."""
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

    return ConsoleMetricExporter() if exporter == "console" else otlp_exporter(settings, "metrics")
