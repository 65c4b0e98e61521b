"""
The providers of OpenTelemetry's SDK for spans, metrics and log records, each with its exporters.

The SDK is imported when a provider is created: the import takes 0.1 s, and without a destination no provider is
created. Not here: the choice of the destinations (_setup).
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace

from dkist_processing_core import semconv
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing._handover import Handover
from dkist_processing_core.tracing._otlp import otlp_exporter
from dkist_processing_core.tracing._scope import current_scope
from dkist_processing_core.tracing._telemetry import chosen_ids

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider


def tracer_provider(settings: Settings, exporters: list[str]) -> "TracerProvider":
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class DerivedIdGenerator(RandomIdGenerator):
        """Gives a span that is being opened the ids that were chosen for it."""

        def generate_trace_id(self) -> int:
            chosen = chosen_ids.get()
            return chosen[0] if chosen else super().generate_trace_id()

        def is_trace_id_random(self) -> bool:
            # A derived id is not random: without this the SDK would set the random flag of W3C Trace Context, level 2.
            return False

        def generate_span_id(self) -> int:
            chosen = chosen_ids.get()
            return chosen[1] if chosen else super().generate_span_id()

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

    processors = [
        ReentrantProcessor(ConsoleSpanExporter() if exporter == "console" else otlp_exporter(settings, "traces"))
        for exporter in exporters
    ]
    provider = TracerProvider(resource=_resource(settings), id_generator=DerivedIdGenerator(), shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    trace.set_tracer_provider(carrying_identity(provider, is_own=True))
    return provider


def meter_provider(settings: Settings, exporters: list[str]) -> "MeterProvider":
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )

    hosts = metrics.get_meter_provider()
    if isinstance(hosts, MeterProvider):
        return hosts
    readers = [
        PeriodicExportingMetricReader(
            ConsoleMetricExporter() if exporter == "console" else otlp_exporter(settings, "metrics")
        )
        for exporter in exporters
    ]
    provider = MeterProvider(readers, resource=_resource(settings), shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


def logger_provider(settings: Settings, exporters: list[str]) -> "LoggerProvider":
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter  # noqa: PLC0415

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

    provider = LoggerProvider(resource=_resource(settings), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(
            ReentrantProcessor(ConsoleLogRecordExporter() if exporter == "console" else otlp_exporter(settings, "logs"))
        )
    return provider


def carrying_identity(provider: "TracerProvider", *, is_own: bool = False) -> "TracerProvider":
    """
    Copy the identity of its parent span, or else of the observed attempt, to each span of a provider.

    Args:
        provider: The provider, whose spans are those of the phases, of the author and of instrumented libraries.
        is_own: Whether the provider is of this package, so that no span in a thread belongs to a host application.
    """
    from opentelemetry.sdk.trace import Span as SdkSpan  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import SpanProcessor  # noqa: PLC0415

    class Identity(SpanProcessor):
        def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
            above = getattr(trace.get_current_span(parent_context), "attributes", None)
            if not above:
                scope = current_scope(of_context=not is_own)
                above = {} if scope is None else scope.attributes
            own = span.attributes or {}
            names = (*semconv.IDENTITY, *semconv.NOMAD)
            span.set_attributes({name: above[name] for name in names if name in above and name not in own})

    provider.add_span_processor(Identity())
    return provider


def _resource(settings: Settings) -> "Resource":
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - as above

    pairs = [pair.partition("=") for pair in (settings.otel_resource_attributes or "").split(",")]
    named = {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
    environ = settings.core_origin.environ
    attributes = semconv.service_attributes(settings.dkist_service_version, environ) | named
    if "otel_service_name" in settings.model_fields_set or SERVICE_NAME not in attributes:
        attributes[SERVICE_NAME] = settings.otel_service_name
    return Resource.create(attributes)
