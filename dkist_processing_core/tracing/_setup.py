"""
The export of spans, metrics and log records: the SDK, set up by the settings, one signal at a time.

Not here: making them (_telemetry).
"""

import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace

from dkist_processing_core import semconv
from dkist_processing_core.process import forks, threads
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

from dkist_processing_core.tracing._collector import SIGNALS, Signal, collector_of, endpoint_of, is_plain, protocol_of
from dkist_processing_core.tracing._handover import Handover
from dkist_processing_core.tracing._telemetry import Telemetry, chosen_ids, given_out_ids

# One for each processor, within bounds, and a few; doubled, since launcher and task begin at the same time.
_THREADS_OF_GRPC = 2 * (min(max(os.cpu_count() or 16, 4), 16) + 6)
logger = logging.getLogger(__name__)
_opened: dict[int, Telemetry] = {}
_opening = forks.Lock()


def open_telemetry(settings: Settings) -> Telemetry:
    """
    Return this process's telemetry, set up by the first call: OpenTelemetry's providers are one per process too.

    If the host application has set up its own tracer provider, spans go there.
    """
    with _opening:
        process = os.getpid()
        if process not in _opened:
            _opened.clear()
            try:
                _opened[process] = _set_up(settings)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with observing, the observed goes on
                reason = redact(f"{type(error).__name__}: {error}", also=secrets_in(settings))
                logger.warning("spans, metrics and logs are not exported: %s", reason)
                _opened[process] = Telemetry()
        return _opened[process]


def _set_up(settings: Settings) -> Telemetry:
    if settings.otel_sdk_disabled:
        return Telemetry()
    secrets = secrets_in(settings)
    makers = {"traces": _tracer_provider, "metrics": _meter_provider, "logs": _logger_provider}
    providers: dict[str, Any] = {"traces": _hosts_tracer_provider()}
    for signal in SIGNALS:
        exporters = _exporters_of(settings, signal)
        if exporters and not providers.get(signal):
            # Here the SDK checks, in its own way, the variables that only it reads, such as OTEL_EXPORTER_OTLP_TIMEOUT.
            try:
                with _variables_of(settings):
                    providers[signal] = makers[signal](settings, exporters)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with observing, the observed goes on
                reason = redact(f"{type(error).__name__}: {error}", also=secrets)
                logger.warning("%s are not exported: %s", signal, reason)
    telemetry = Telemetry(
        providers["traces"],
        providers.get("metrics"),
        providers.get("logs"),
        collectors={
            signal: collector
            for signal in SIGNALS
            if _exporters_of(settings, signal) == ["otlp"] and (collector := collector_of(settings, signal))
        },
        secrets=secrets,
    )
    _heed_given_out_ids(telemetry.tracer)
    return telemetry


@contextmanager
def _variables_of(settings: Settings) -> Iterator[None]:
    """Give the SDK its variables, such as OTEL_EXPORTER_OTLP_HEADERS, as they were when the settings were read."""
    then = settings.core_origin.environ
    changed = {
        name: os.environ.get(name)
        for name in {*then, *os.environ}
        if name.startswith("OTEL_") and then.get(name) != os.environ.get(name)
    }
    _set_variables({name: then.get(name) for name in changed})
    try:
        yield
    finally:
        _set_variables(changed)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _heed_given_out_ids(tracer: trace.Tracer) -> None:
    """Make this library's tracer of a host application's provider use the ids that other processes already know."""
    sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None or not isinstance(tracer, sdk.Tracer):
        return

    inner = tracer.id_generator

    class GivenOutIdGenerator(sdk.IdGenerator):  # type: ignore[misc] # the SDK is not imported to see
        def generate_trace_id(self) -> int:
            ids = given_out_ids.get()
            return ids[0] if ids else int(inner.generate_trace_id())

        def is_trace_id_random(self) -> bool:
            return given_out_ids.get() is None and bool(inner.is_trace_id_random())

        def generate_span_id(self) -> int:
            ids = given_out_ids.get()
            return ids[1] if ids else int(inner.generate_span_id())

    tracer.id_generator = GivenOutIdGenerator()


def _hosts_tracer_provider() -> "TracerProvider | None":
    """Return the provider that the host application has set up, else None; this check does not import the SDK."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    provider: Any = trace.get_tracer_provider()
    if sdk is not None and isinstance(provider, sdk.TracerProvider):
        return _carrying_identity(provider)
    is_set = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    return provider if is_set else None


def _exporters_of(settings: Settings, signal: Signal) -> list[str]:
    named = getattr(settings, f"otel_{signal}_exporter") or ("otlp" if endpoint_of(settings, signal) else "none")
    return [] if named == "none" else str(named).split(",")


@functools.cache
def _has_threads_for_grpc() -> bool:
    return threads.can_be_started(_THREADS_OF_GRPC)


def _otlp_exporter(settings: Settings, signal: Signal) -> Any:
    """Return the OTLP exporter of a signal; the exporter itself reads settings that are not ours, such as headers."""
    special = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint")
    class_name = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter", "logs": "OTLPLogExporter"}[signal]
    package = {"traces": "trace_exporter", "metrics": "metric_exporter", "logs": "_log_exporter"}[signal]
    endpoint = endpoint_of(settings, signal)
    transport = "http" if protocol_of(settings, signal) == "http/protobuf" else "grpc"
    if transport == "grpc" and not _has_threads_for_grpc():
        msg = (
            f"found fewer than {_THREADS_OF_GRPC} further threads, where gRPC may abort this process; raise the "
            "limit on processes (ulimit -u, pids.max), or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
        raise RuntimeError(msg)
    module = import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{package}")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if endpoint and transport == "http" and not special:
        # By the specification, the general variable names the base, and a signal's own variable the exact address.
        options["endpoint"] = f"{endpoint.rstrip('/')}/v1/{signal}"
    if is_plain(settings, signal):
        options["insecure"] = True
    if transport == "http" and not any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ):
        options["session"] = _session()
    return getattr(module, class_name)(**options)


def _session() -> Any:
    """
    Return a session that keeps no connection open between exports.

    The author's code may close the connection's descriptor, and open a file of the same number meanwhile.
    """
    import requests  # noqa: PLC0415 - what the exporter uses, which is imported by now

    session = requests.Session()
    session.headers["Connection"] = "close"

    def close(response: Any, **_: object) -> None:
        connection = response.raw.connection
        _ = response.content
        # The connection is back in the pool now, and is connected again when it is used again.
        if connection is not None:
            connection.close()

    session.hooks["response"].append(close)
    return session


def _resource(settings: Settings) -> "Resource":
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - costs 0.1 s, for exporters only

    pairs = [pair.partition("=") for pair in (settings.otel_resource_attributes or "").split(",")]
    attributes = {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
    if "otel_service_name" in settings.model_fields_set or SERVICE_NAME not in attributes:
        attributes[SERVICE_NAME] = settings.otel_service_name
    return Resource.create(attributes)


def _carrying_identity(provider: "TracerProvider") -> "TracerProvider":
    """Copy the identity of its parent span to each span of a provider: to those of the phases and of the author."""
    from opentelemetry.sdk.trace import Span as SdkSpan  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk.trace import SpanProcessor  # noqa: PLC0415

    class Identity(SpanProcessor):
        def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
            above = getattr(trace.get_current_span(parent_context), "attributes", None) or {}
            own = span.attributes or {}
            span.set_attributes({name: above[name] for name in semconv.IDENTITY if name in above and name not in own})

    provider.add_span_processor(Identity())
    return provider


def _tracer_provider(settings: Settings, exporters: list[str]) -> "TracerProvider":
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415 - as in _resource
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
        """Also accepts spans that a signal's handler ends while it accepts another item."""

        def __init__(self, exporter: Any) -> None:
            super().__init__(exporter)
            self._handover = Handover(super().on_end)

        def on_end(self, span: ReadableSpan) -> None:
            self._handover.give(span)

        def force_flush(self, timeout_millis: int | None = None) -> bool:
            self._handover.hand_over()
            return super().force_flush(timeout_millis)

    processors = [
        ReentrantProcessor(ConsoleSpanExporter() if exporter == "console" else _otlp_exporter(settings, "traces"))
        for exporter in exporters
    ]
    provider = TracerProvider(resource=_resource(settings), id_generator=DerivedIdGenerator(), shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    trace.set_tracer_provider(_carrying_identity(provider))
    return provider


def _meter_provider(settings: Settings, exporters: list[str]) -> "MeterProvider":
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


def _logger_provider(settings: Settings, exporters: list[str]) -> "LoggerProvider":
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as in _resource
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter  # noqa: PLC0415

    class ReentrantProcessor(BatchLogRecordProcessor):
        """Also accepts records that a signal's handler logs while it accepts another item."""

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
            ReentrantProcessor(
                ConsoleLogRecordExporter() if exporter == "console" else _otlp_exporter(settings, "logs")
            )
        )
    return provider
