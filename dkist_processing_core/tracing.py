"""
Spans, metrics and log records of a process: one trace per run, with ids derived from what is traced.

Nothing is exported, and the OpenTelemetry SDK is not even imported, unless the settings name somewhere to export to.
Not here: names (semconv), and what is traced (lifecycle, local, launcher).
"""

import contextlib
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dkist_processing_core import semconv
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import describe, format_facts
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.text import redact

if TYPE_CHECKING:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

SCOPE = "dkist_processing_core"
Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()
logger = logging.getLogger(__name__)


def derived_trace_id(run: Run) -> int:
    """Return the id of the run's trace, 128 bits of SHA-256 over the run's identity."""
    return int(_digest("trace", run)[:32], 16)


def derived_run_span_id(run: Run, restarted_at: str = "") -> int:
    """Return the id of the run's root span; one that was cleared and began again has another for each start."""
    return int(_digest("run", run, *([restarted_at] if restarted_at else []))[:16], 16)


def derived_attempt_span_id(attempt: Attempt) -> int:
    """Return the id of the attempt's span, 64 bits of SHA-256 over run, task and attempt."""
    return int(_digest("attempt", attempt.run, attempt.task_name, str(attempt.attempt))[:16], 16)


def _digest(what: str, run: Run, *facts: str) -> str:
    identity = [what, run.workflow_name, run.workflow_version, run.run_id, *facts]
    return hashlib.sha256(format_facts(identity).encode(errors="surrogatepass")).hexdigest()


def run_parent(run: Run, environ: Mapping[str, str]) -> SpanContext:
    """
    Return what spans of a run hang from: the caller's `TRACEPARENT`, else the run's own root span.

    The flag is always 01: a parent that was not sampled would silence the whole run.
    """
    carrier = {name.lower(): environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in environ}
    outer = trace.get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    if outer.is_valid:
        return SpanContext(
            outer.trace_id, outer.span_id, is_remote=True, trace_flags=_SAMPLED, trace_state=outer.trace_state
        )
    return SpanContext(derived_trace_id(run), derived_run_span_id(run), is_remote=True, trace_flags=_SAMPLED)


def to_traceparent(span: SpanContext) -> str:
    """Return a span's context as W3C Trace Context writes it."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@dataclass(frozen=True, slots=True)
class Carrier:
    """A span's context as events and environments carry it."""

    traceparent: str
    tracestate: str | None

    @classmethod
    def of(cls, span: SpanContext) -> "Carrier":
        """Return the carrier of a span's context."""
        return cls(to_traceparent(span), span.trace_state.to_header() or None)

    def to_environ(self) -> dict[str, str]:
        """Return the variables by which a process takes the trace up."""
        state = {"TRACESTATE": self.tracestate} if self.tracestate else {}
        return {"TRACEPARENT": self.traceparent} | state


_chosen_ids: ContextVar[tuple[int, int] | None] = ContextVar("chosen_ids", default=None)


class Telemetry:
    """
    What a process traces, measures and logs with; without somewhere to export to, everything is a cheap no-op.

    Its spans may be used without any of the context they stand in: `span` is a context manager like any other.
    """

    def __init__(
        self,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        logger_provider: "LoggerProvider | None" = None,
    ) -> None:
        """Take what `open_telemetry` has set up; None for what is not exported."""
        self._providers = [p for p in (tracer_provider, meter_provider, logger_provider) if p is not None]
        self._logger_provider = logger_provider
        self.is_tracing = tracer_provider is not None
        self.tracer: trace.Tracer = tracer_provider.get_tracer(SCOPE) if tracer_provider else trace.get_tracer(SCOPE)
        self.meter: metrics.Meter = meter_provider.get_meter(SCOPE) if meter_provider else metrics.get_meter(SCOPE)

    @contextlib.contextmanager
    def span(self, name: str, **options: Any) -> Iterator[Span]:
        """
        Open a child of the current span; an exception that leaves it makes it an error.

        What the author set stands: a status is only set where there is none. Exceptions are recorded redacted.
        """
        record = options.pop("record_exception", True)
        set_status = options.pop("set_status_on_exception", True)
        with self.tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield span
            except BaseException as error:
                note_error(span, error, record=record, set_status=set_status)
                raise

    @contextlib.contextmanager
    def root_span(
        self, name: str, parent: SpanContext | None, own: SpanContext, kind: SpanKind, attributes: Mapping[str, Any]
    ) -> Iterator[Span]:
        """Open a span with the ids of `own`, below `parent`, and make it the current one; exported or not."""
        context = trace.set_span_in_context(
            NonRecordingSpan(parent) if parent else trace.INVALID_SPAN, otel_context.Context()
        )
        if not self.is_tracing:
            span: Span = NonRecordingSpan(own)
        else:
            token = _chosen_ids.set((own.trace_id, own.span_id))
            try:
                span = self.tracer.start_span(name, context, kind, attributes)
            finally:
                _chosen_ids.reset(token)
        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            finally:
                span.end()

    @contextlib.contextmanager
    def log_records(self, attributes: Mapping[str, Any]) -> Iterator[None]:
        """Export what is logged meanwhile, by whichever logger, with `attributes` and the current span's ids."""
        if self._logger_provider is None:
            yield
            return
        handler = _LogExport(self._logger_provider, dict(attributes))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)

    @contextlib.contextmanager
    def flushing(self, timeout: float) -> Iterator[None]:
        """
        Export what there is meanwhile, and wait for it until `timeout` seconds after the beginning.

        In threads, since the SDK's own flush and shutdown know no bound: with a dead collector they take seconds.
        """
        deadline = time.monotonic() + timeout
        threads = [self._in_background(provider.force_flush) for provider in self._providers]
        yield
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @staticmethod
    def _in_background(action: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                action()
            except Exception:
                logger.debug("telemetry could not be exported", exc_info=True)

        thread = threading.Thread(target=run, name="dkist-core-telemetry", daemon=True)
        thread.start()
        return thread


class _LogExport(logging.Handler):
    """Hands records to OpenTelemetry, redacted. The SDK's own handler is deprecated, and knows no redaction."""

    def __init__(self, provider: "LoggerProvider", attributes: dict[str, Any]) -> None:
        super().__init__()
        self._logger = provider.get_logger(SCOPE)
        self._attributes = attributes
        self._severities = _severities()
        # What an exporter logs about its failures must not feed it.
        self.addFilter(lambda record: not record.name.startswith("opentelemetry"))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record over."""
        try:
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=self._severities(record.levelno),
                body=redact(self.format(record)),
                attributes=self._attributes | {"logger.name": record.name},
            )
        except Exception:  # noqa: BLE001 - as every logging.Handler: a record that fails must not end the program
            self.handleError(record)


def _severities() -> Callable[[int], "SeverityNumber"]:
    """Return what gives OpenTelemetry's number for a level of `logging`: the first of each of its ranges of four."""
    from opentelemetry._logs import SeverityNumber  # noqa: PLC0415 - as in _set_up

    named = {10: SeverityNumber.DEBUG, 20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
    return lambda level: (
        SeverityNumber.FATAL if level >= logging.CRITICAL else named.get(level // 10 * 10, SeverityNumber.TRACE)
    )


def note_error(span: Span, error: BaseException, *, record: bool = True, set_status: bool = True) -> None:
    """Mark a span as failed by an exception, redacted; a status that stands already is left alone."""
    if not span.is_recording():
        return
    failure = describe(error)
    message = redact(failure["message"])
    if record:
        span.add_event(
            semconv.EXCEPTION,
            {
                semconv.EXCEPTION_TYPE: failure["error_type"],
                semconv.EXCEPTION_MESSAGE: message,
                semconv.EXCEPTION_STACKTRACE: redact(failure["stack"]),
            },
        )
    status: Status | None = getattr(span, "status", None)
    if set_status and (status is None or status.status_code is StatusCode.UNSET):
        span.set_status(Status(StatusCode.ERROR, message))
        span.set_attribute(semconv.ERROR_TYPE, failure["error_type"])


_opened: dict[int, Telemetry] = {}
_opening = threading.Lock()


def open_telemetry(settings: DKISTProcessingCoreConfiguration) -> Telemetry:
    """
    Return this process's telemetry, set up by the first call: OpenTelemetry's providers are one per process too.

    Where the host application has set up a tracer provider of its own, spans go there.
    """
    with _opening:
        process = os.getpid()
        if process not in _opened:
            _opened.clear()
            _opened[process] = _set_up(settings)
        return _opened[process]


def _set_up(settings: DKISTProcessingCoreConfiguration) -> Telemetry:
    if settings.otel_sdk_disabled:
        return Telemetry()
    exporters = {signal: exporter for signal in SIGNALS if (exporter := _exporter_of(settings, signal))}
    if not exporters:
        return Telemetry(tracer_provider=_hosts_tracer_provider())
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - costs 0.1 s, for exporters only

    resource = Resource.create({SERVICE_NAME: settings.otel_service_name})
    return Telemetry(
        tracer_provider=_tracer_provider(settings, resource, exporters["traces"]) if "traces" in exporters else None,
        meter_provider=_meter_provider(settings, resource, exporters["metrics"]) if "metrics" in exporters else None,
        logger_provider=_logger_provider(settings, resource, exporters["logs"]) if "logs" in exporters else None,
    )


def _hosts_tracer_provider() -> "TracerProvider | None":
    """Return the provider that the host application has set up, if it has; without importing the SDK to see."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    provider = trace.get_tracer_provider()
    return provider if sdk is not None and isinstance(provider, sdk.TracerProvider) else None


def endpoint_of(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> str | None:
    """Return where a signal's collector is, by the standard variables, else by `MESH_CONFIG`; None if nowhere."""
    named = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint") or settings.otel_exporter_otlp_endpoint
    if named:
        return str(named)
    service = settings.mesh_config.get(f"otlp-{signal}-endpoint")
    return f"http://{service.host}:{service.port}" if service else None


def _exporter_of(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> str | None:
    named = getattr(settings, f"otel_{signal}_exporter") or ("otlp" if endpoint_of(settings, signal) else "none")
    return None if named == "none" else str(named)


def _otlp_exporter(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> Any:
    """Return the OTLP exporter of a signal; the standard variables are its own to read, where they name anything."""
    in_environment = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint") or settings.otel_exporter_otlp_endpoint
    protocol = getattr(settings, f"otel_exporter_otlp_{signal}_protocol") or settings.otel_exporter_otlp_protocol
    class_name = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter", "logs": "OTLPLogExporter"}[signal]
    package = {"traces": "trace_exporter", "metrics": "metric_exporter", "logs": "_log_exporter"}[signal]
    # MESH_CONFIG names collectors that speak gRPC, whatever a protocol variable says of others.
    transport = "http" if protocol == "http/protobuf" and in_environment else "grpc"
    module = import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{package}")
    mesh_endpoint = None if in_environment else endpoint_of(settings, signal)
    options = {"endpoint": mesh_endpoint, "insecure": True} if mesh_endpoint else {}
    return getattr(module, class_name)(**options)


def _tracer_provider(
    settings: DKISTProcessingCoreConfiguration, resource: "Resource", exporter: str
) -> "TracerProvider":
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as in _set_up
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    hosts = _hosts_tracer_provider()
    if hosts is not None:
        return hosts

    class DerivedIdGenerator(RandomIdGenerator):
        """Gives the span that is being opened the ids that were chosen for it."""

        def generate_trace_id(self) -> int:
            chosen = _chosen_ids.get()
            return chosen[0] if chosen else super().generate_trace_id()

        def is_trace_id_random(self) -> bool:
            # A derived id is no random one: without this the SDK would set that flag of W3C Trace Context, level 2.
            return False

        def generate_span_id(self) -> int:
            chosen = _chosen_ids.get()
            return chosen[1] if chosen else super().generate_span_id()

    provider = TracerProvider(resource=resource, id_generator=DerivedIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(ConsoleSpanExporter() if exporter == "console" else _otlp_exporter(settings, "traces"))
    )
    trace.set_tracer_provider(provider)
    return provider


def _meter_provider(settings: DKISTProcessingCoreConfiguration, resource: "Resource", exporter: str) -> "MeterProvider":
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as in _set_up
    from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )

    hosts = metrics.get_meter_provider()
    if isinstance(hosts, MeterProvider):
        return hosts
    reader = PeriodicExportingMetricReader(
        ConsoleMetricExporter() if exporter == "console" else _otlp_exporter(settings, "metrics")
    )
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


def _logger_provider(
    settings: DKISTProcessingCoreConfiguration, resource: "Resource", exporter: str
) -> "LoggerProvider":
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as in _set_up
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter  # noqa: PLC0415

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(
            ConsoleLogRecordExporter() if exporter == "console" else _otlp_exporter(settings, "logs")
        )
    )
    return provider
