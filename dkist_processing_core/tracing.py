"""
Spans, metrics and log records of a process: one trace per run, with ids derived from what is traced.

Nothing is exported, and the OpenTelemetry SDK is not even imported, unless the settings name somewhere to export to.
Not here: names (semconv), and what is traced (lifecycle, local, launcher).
"""

import contextlib
import copy
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dkist_processing_core import semconv
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, secrets_in
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
        return sampled(outer)
    return SpanContext(derived_trace_id(run), derived_run_span_id(run), is_remote=True, trace_flags=_SAMPLED)


def sampled(span: SpanContext) -> SpanContext:
    """Return the same context with the flag 01."""
    return SpanContext(
        span.trace_id, span.span_id, is_remote=span.is_remote, trace_flags=_SAMPLED, trace_state=span.trace_state
    )


def to_traceparent(span: SpanContext) -> str:
    """Return a span's context as W3C Trace Context writes it; the flag is always 01, whatever a sampler decided."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{_SAMPLED:02x}"


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
_log_attributes: ContextVar[Mapping[str, Any] | None] = ContextVar("log_attributes", default=None)
_EXPORTERS_LOGGERS = frozenset({"opentelemetry", "grpc", "urllib3", "requests"})


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
        *,
        secrets: Iterable[str] = (),
    ) -> None:
        """Take what `open_telemetry` has set up; None for what is not exported. `secrets` are never exported."""
        self._providers = [p for p in (tracer_provider, meter_provider, logger_provider) if p is not None]
        self._secrets = list(secrets)
        self._log_export = _LogExport(logger_provider, self._secrets) if logger_provider else None
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
                self.note_error(span, error, record=record, set_status=set_status)
                raise

    def note_error(self, span: Span, error: BaseException, *, record: bool = True, set_status: bool = True) -> None:
        """Mark a span as failed by an exception, redacted; a status that stands already is left alone."""
        if not span.is_recording():
            return
        failure = describe(error)
        message = redact(failure["message"], also=self._secrets)
        if record:
            span.add_event(
                semconv.EXCEPTION,
                {
                    semconv.EXCEPTION_TYPE: failure["error_type"],
                    semconv.EXCEPTION_MESSAGE: message,
                    semconv.EXCEPTION_STACKTRACE: redact(failure["stack"], also=self._secrets),
                },
            )
        status: Status | None = getattr(span, "status", None)
        if set_status and (status is None or status.status_code is StatusCode.UNSET):
            span.set_status(Status(StatusCode.ERROR, message))
            span.set_attribute(semconv.ERROR_TYPE, failure["error_type"])

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
        with contextlib.nullcontext() if self._log_export is None else self._log_export.scope(attributes):
            yield

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


class _LogExport:
    """
    Hands what is logged to OpenTelemetry, redacted.

    By the factory of log records, and not by a handler: one on the root logger would change what the author sees, since
    `logging.basicConfig` and the handler of last resort only work while there is none.
    """

    def __init__(self, provider: "LoggerProvider", secrets: list[str]) -> None:
        self._logger = provider.get_logger(SCOPE)
        self._secrets = secrets
        self._severities = _severities()
        self._formatter = logging.Formatter()
        self._lock = threading.Lock()
        self._scopes: list[Mapping[str, Any]] = []
        self._inner: Callable[..., logging.LogRecord] = logging.LogRecord
        self._factory: Callable[..., logging.LogRecord] | None = None

    @contextlib.contextmanager
    def scope(self, attributes: Mapping[str, Any]) -> Iterator[None]:
        """Export each record made meanwhile, once: with the attributes of its context, else of the last scope."""
        token = _log_attributes.set(attributes)
        with self._lock:
            if not self._scopes:
                self._install()
            self._scopes.append(attributes)
        try:
            yield
        finally:
            _log_attributes.reset(token)
            with self._lock:
                self._scopes.remove(attributes)
                if not self._scopes:
                    self._uninstall()

    def _install(self) -> None:
        inner = logging.getLogRecordFactory()

        def factory(*values: Any, **named: Any) -> logging.LogRecord:
            record = inner(*values, **named)
            if self._factory is factory:
                self._export(record)
            return record

        self._inner, self._factory = inner, factory
        logging.setLogRecordFactory(factory)

    def _uninstall(self) -> None:
        # Where the author has put a factory around this one, it stays inside, and does nothing any more.
        if logging.getLogRecordFactory() is self._factory:
            logging.setLogRecordFactory(self._inner)
        self._factory = None

    def _export(self, record: logging.LogRecord) -> None:
        # Without a name it is no new record, but a copy that is being filled in (logging.makeLogRecord). What exporters
        # and their transports log must not feed them.
        if not isinstance(record.name, str) or record.name.partition(".")[0] in _EXPORTERS_LOGGERS:
            return
        # A record that cannot be formatted is its author's to hear of, from the handlers; none must end the program.
        with contextlib.suppress(Exception):
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=self._severities(record.levelno),
                # A copy: formatting leaves its marks on a record.
                body=redact(self._formatter.format(copy.copy(record)), also=self._secrets),
                attributes={**(_log_attributes.get() or self._scopes[-1]), "logger.name": record.name},
            )


def _severities() -> Callable[[int], "SeverityNumber"]:
    """Return what gives OpenTelemetry's number for a level of `logging`: the first of each of its ranges of four."""
    from opentelemetry._logs import SeverityNumber  # noqa: PLC0415 - as in _resource

    named = {10: SeverityNumber.DEBUG, 20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
    return lambda level: (
        SeverityNumber.FATAL if level >= logging.CRITICAL else named.get(level // 10 * 10, SeverityNumber.TRACE)
    )


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
    secrets = secrets_in(settings)
    makers = {"traces": _tracer_provider, "metrics": _meter_provider, "logs": _logger_provider}
    providers: dict[str, Any] = {"traces": _hosts_tracer_provider()}
    for signal in SIGNALS:
        exporters = _exporters_of(settings, signal)
        if exporters and not providers.get(signal):
            # The SDK checks the variables that only it reads, as OTEL_EXPORTER_OTLP_TIMEOUT, here and in its own way.
            try:
                providers[signal] = makers[signal](settings, exporters)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with observing, the observed goes on
                reason = redact(f"{type(error).__name__}: {error}", also=secrets)
                logger.warning("%s are not exported: %s", signal, reason)
    return Telemetry(providers["traces"], providers.get("metrics"), providers.get("logs"), secrets=secrets)


def _hosts_tracer_provider() -> "TracerProvider | None":
    """Return the provider that the host application has set up, if it has; without importing the SDK to see."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    provider = trace.get_tracer_provider()
    return _carrying_identity(provider) if sdk is not None and isinstance(provider, sdk.TracerProvider) else None


def endpoint_of(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> str | None:
    """Return where a signal's collector is, by the standard variables, else by `MESH_CONFIG`; None if nowhere."""
    named = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint") or settings.otel_exporter_otlp_endpoint
    if named:
        return str(named)
    service = settings.mesh_config.get(f"otlp-{signal}-endpoint")
    return f"http://{service.host}:{service.port}" if service else None


def _exporters_of(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> list[str]:
    named = getattr(settings, f"otel_{signal}_exporter") or ("otlp" if endpoint_of(settings, signal) else "none")
    return [] if named == "none" else str(named).split(",")


def _otlp_exporter(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> Any:
    """Return the OTLP exporter of a signal; what is no setting of ours, as headers, it reads for itself."""
    special = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint")
    protocol = getattr(settings, f"otel_exporter_otlp_{signal}_protocol") or settings.otel_exporter_otlp_protocol
    class_name = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter", "logs": "OTLPLogExporter"}[signal]
    package = {"traces": "trace_exporter", "metrics": "metric_exporter", "logs": "_log_exporter"}[signal]
    endpoint = endpoint_of(settings, signal)
    is_from_mesh = endpoint is not None and not (special or settings.otel_exporter_otlp_endpoint)
    # MESH_CONFIG names collectors that speak gRPC, whatever a protocol variable says of others.
    transport = "http" if protocol == "http/protobuf" and not is_from_mesh else "grpc"
    module = import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{package}")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if endpoint and transport == "http" and not special:
        # By the specification the general variable names the base, a signal's own one the very address.
        options["endpoint"] = f"{endpoint.rstrip('/')}/v1/{signal}"
    if is_from_mesh:
        options["insecure"] = True
    return getattr(module, class_name)(**options)


def _resource(settings: DKISTProcessingCoreConfiguration) -> "Resource":
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - costs 0.1 s, for exporters only

    pairs = [pair.partition("=") for pair in (settings.otel_resource_attributes or "").split(",")]
    attributes = {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
    if "otel_service_name" in settings.model_fields_set or SERVICE_NAME not in attributes:
        attributes[SERVICE_NAME] = settings.otel_service_name
    return Resource.create(attributes)


def _carrying_identity(provider: "TracerProvider") -> "TracerProvider":
    """Let each span of a provider carry the identity of the span above it: the phases', the author's own."""
    from opentelemetry.sdk.trace import Span as SdkSpan  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk.trace import SpanProcessor  # noqa: PLC0415

    class Identity(SpanProcessor):
        def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
            above = getattr(trace.get_current_span(parent_context), "attributes", None) or {}
            own = span.attributes or {}
            span.set_attributes({name: above[name] for name in semconv.IDENTITY if name in above and name not in own})

    provider.add_span_processor(Identity())
    return provider


def _tracer_provider(settings: DKISTProcessingCoreConfiguration, exporters: list[str]) -> "TracerProvider":
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

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

    processors = [
        BatchSpanProcessor(ConsoleSpanExporter() if exporter == "console" else _otlp_exporter(settings, "traces"))
        for exporter in exporters
    ]
    provider = TracerProvider(resource=_resource(settings), id_generator=DerivedIdGenerator(), shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    trace.set_tracer_provider(_carrying_identity(provider))
    return provider


def _meter_provider(settings: DKISTProcessingCoreConfiguration, exporters: list[str]) -> "MeterProvider":
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )

    hosts = metrics.get_meter_provider()
    if isinstance(hosts, MeterProvider):
        return hosts
    readers = [
        PeriodicExportingMetricReader(
            ConsoleMetricExporter() if exporter == "console" else _otlp_exporter(settings, "metrics")
        )
        for exporter in exporters
    ]
    provider = MeterProvider(readers, resource=_resource(settings), shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


def _logger_provider(settings: DKISTProcessingCoreConfiguration, exporters: list[str]) -> "LoggerProvider":
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter  # noqa: PLC0415

    provider = LoggerProvider(resource=_resource(settings), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(
            BatchLogRecordProcessor(
                ConsoleLogRecordExporter() if exporter == "console" else _otlp_exporter(settings, "logs")
            )
        )
    return provider
