"""
The providers of OpenTelemetry's SDK for spans, metrics and log records.

The SDK is imported when a provider is created, and without a destination no provider is created: its import
takes longer than the work of a short task. Not here: the choice of the destinations (_setup), and the way of the
telemetry to them (_journalling, _exporting).
"""

import math
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.process.own_random import own_random
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.tracing import _exporting, _journalling
from dkist_processing_core.tracing._batches import Batches
from dkist_processing_core.tracing._scope import current_scope
from dkist_processing_core.tracing._telemetry import chosen_ids

_RESOURCES, _PSUTIL = "opentelemetry.sdk.resources", "psutil"

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider


def tracer_provider(settings: Settings, exporters: list[str], batches: Batches | None) -> "TracerProvider":
    resource = resource_of(settings)

    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415

    class DerivedIdGenerator(IdGenerator):
        """Gives a span that is being opened the ids that were chosen for it; otherwise random ones, which are not 0."""

        def generate_trace_id(self) -> int:
            chosen = chosen_ids.get()
            return chosen[0] if chosen else own_random.getrandbits(128) or 1

        def is_trace_id_random(self) -> bool:
            # A derived id is not random: without this the SDK would set the random flag of W3C Trace Context, level 2.
            return False

        def generate_span_id(self) -> int:
            chosen = chosen_ids.get()
            return chosen[1] if chosen else own_random.getrandbits(64) or 1

    provider = TracerProvider(resource=resource, id_generator=DerivedIdGenerator(), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(
            _exporting.span_processor(settings, exporter)
            if batches is None or exporter == "console"
            else _journalling.span_processor(batches, secrets_in(settings))
        )
    trace.set_tracer_provider(carrying_identity(provider, is_own=True))
    return provider


def meter_provider(settings: Settings, exporters: list[str], batches: Batches | None) -> "MeterProvider":
    resource = resource_of(settings)

    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above

    readers = [
        _reader(
            _exporting.metric_exporter(settings, exporter)
            if batches is None or exporter == "console"
            else _journalling.metric_exporter(batches, secrets_in(settings))
        )
        for exporter in exporters
    ]
    return MeterProvider(readers, resource=resource, shutdown_on_exit=False)


def _reader(exporter: Any) -> Any:
    """Return a reader that collects at intervals, and at the end; without threads at the end alone."""
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - as above

    try:
        return PeriodicExportingMetricReader(exporter)
    except RuntimeError:
        return PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)


def logger_provider(settings: Settings, exporters: list[str], batches: Batches | None) -> Any:
    """Return a provider of loggers that append to the journal, or send to other destinations, or do both."""
    others = [exporter for exporter in exporters if batches is None or exporter != "otlp"]
    beside = _sdks_logger_provider(settings, others) if others else None
    if batches is None or "otlp" not in exporters:
        return beside
    return _journalling.JournallingLoggerProvider(batches, resource_of(settings), beside)


def _sdks_logger_provider(settings: Settings, exporters: list[str]) -> "LoggerProvider":
    resource = resource_of(settings)

    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as above

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(_exporting.log_record_processor(settings, exporter))
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


def resource_of(settings: Settings) -> "Resource":
    """Return the attributes of this process, by the standard variables and those of 7.x."""
    resources: Any = _resources()
    from opentelemetry.sdk.version import __version__  # noqa: PLC0415

    attributes = semconv.resource_attributes(settings)
    if settings.core_origin.environ.get("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        created: Resource = resources.Resource.create(attributes)
        return created
    # `Resource.create` starts a thread for each detector, also for the only default one, which reads the variable.
    sdk = {
        resources.TELEMETRY_SDK_LANGUAGE: "python",
        resources.TELEMETRY_SDK_NAME: "opentelemetry",
        resources.TELEMETRY_SDK_VERSION: __version__,
    }
    own: Resource = resources.Resource(sdk | attributes)
    return own


def _resources() -> ModuleType:
    """Import the SDK's module of resources without psutil, which it imports for one detector, unless that is used."""
    # The SDK's fork handler uses threads of this module, whose own fork handler must have been registered before.
    import concurrent.futures.thread  # noqa: F401, PLC0415

    if _PSUTIL in sys.modules or find_spec(_PSUTIL) is None:
        return import_module(_RESOURCES)
    later = sys.modules[_PSUTIL] = _ImportedLater(_PSUTIL)
    try:
        return import_module(_RESOURCES)
    finally:
        # Another thread may have imported psutil itself.
        if sys.modules.get(_PSUTIL) is later:
            del sys.modules[_PSUTIL]


class _ImportedLater(ModuleType):
    """A module that is imported when one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
