"""
The set-up of a process's telemetry by the settings, one signal at a time.

Not here: the providers and their exporters (_providers, _otlp), and the spans, metrics and log records (_telemetry).
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from dkist_processing_core.otlp.destination import SIGNALS, Signal, collector_of, endpoint_of
from dkist_processing_core.process import forks
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact
from dkist_processing_core.tracing._config_file import config_file_of, problem_of_config_file, providers_of_file
from dkist_processing_core.tracing._executed import DELTA, PREFERENCE
from dkist_processing_core.tracing._telemetry import Telemetry, chosen_ids, given_out_ids

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)
_opened: dict[int, Telemetry] = {}
_opening = forks.Lock()


def open_telemetry(settings: Settings) -> Telemetry:
    """
    Return this process's telemetry, set up by the first call: OpenTelemetry also has its providers once per process.

    If the host application has set up its own tracer provider, spans go there.
    """
    with _opening:
        process = os.getpid()
        if process not in _opened:
            _opened.clear()
            try:
                _opened[process] = _set_up(settings)
            except Exception as error:  # noqa: BLE001 - no error of telemetry may reach the task
                reason = redact(f"{type(error).__name__}: {error}", also=secrets_in(settings))
                logger.warning("spans, metrics and logs are not exported: %s", reason)
                _opened[process] = Telemetry()
        return _opened[process]


def _set_up(settings: Settings) -> Telemetry:
    if settings.otel_sdk_disabled:
        return Telemetry()
    secrets = secrets_in(settings)
    providers: dict[str, Any] = {"traces": _hosts_tracer_provider()}
    is_hosted = providers["traces"] is not None
    if (named := config_file_of(settings)) is not None and providers["traces"] is None:
        problem = problem_of_config_file(settings)
        if problem is None:
            return _set_up_by_file(settings, named[1])
        logger.warning("%s", redact(problem, also=secrets))
    for signal in SIGNALS:
        exporters = _exporters_of(settings, signal)
        if exporters and not providers.get(signal):
            # Here the SDK checks, in its own way, the variables that only it reads, such as OTEL_EXPORTER_OTLP_TIMEOUT.
            try:
                with _variables_of(settings):
                    providers[signal] = _provider_of(settings, signal, exporters)
            except Exception as error:  # noqa: BLE001 - no error of telemetry may reach the task
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
    telemetry.has_own_spans = telemetry.is_tracing and not is_hosted
    telemetry.temporality = settings.core_origin.environ.get(PREFERENCE) or DELTA
    _use_given_out_ids(telemetry.tracer)
    return telemetry


def _set_up_by_file(settings: Settings, file: str) -> Telemetry:
    with _variables_of(settings):
        providers = providers_of_file(settings, file)
    telemetry = Telemetry(
        _hosts_tracer_provider(), providers.get("metrics"), providers.get("logs"), secrets=secrets_in(settings)
    )
    telemetry.has_own_spans = telemetry.is_tracing
    # Here no process has to wait for ids that a provider chooses: all of this run's set up the same ones.
    _use_given_out_ids(telemetry.tracer, chosen_ids)
    return telemetry


def _provider_of(settings: Settings, signal: Signal, exporters: list[str]) -> Any:
    from dkist_processing_core.tracing import _providers  # noqa: PLC0415 - nothing is exported by default

    makers = {
        "traces": _providers.tracer_provider,
        "metrics": _providers.meter_provider,
        "logs": _providers.logger_provider,
    }
    return makers[signal](settings, exporters)


def _exporters_of(settings: Settings, signal: Signal) -> list[str]:
    named = getattr(settings, f"otel_{signal}_exporter") or ("otlp" if endpoint_of(settings, signal) else "none")
    return [] if named == "none" else str(named).split(",")


@contextmanager
def _variables_of(settings: Settings) -> Iterator[None]:
    """
    Give the SDK its variables, such as OTEL_EXPORTER_OTLP_HEADERS, as they were when the settings were read.

    The sums of a task's process are increments unless a variable requests totals: the next process would begin again.
    """
    then = {PREFERENCE: DELTA} | settings.core_origin.environ
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


def _use_given_out_ids(tracer: trace.Tracer, given: ContextVar[tuple[int, int] | None] = given_out_ids) -> None:
    """Make this library's tracer of a provider that is not its own use the ids that other processes already know."""
    sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None or not isinstance(tracer, sdk.Tracer):
        return

    inner = tracer.id_generator

    class GivenOutIdGenerator(sdk.IdGenerator):  # type: ignore[misc] # the SDK is not imported to see
        def generate_trace_id(self) -> int:
            ids = given.get()
            return ids[0] if ids else int(inner.generate_trace_id())

        def is_trace_id_random(self) -> bool:
            return given.get() is None and bool(inner.is_trace_id_random())

        def generate_span_id(self) -> int:
            ids = given.get()
            return ids[1] if ids else int(inner.generate_span_id())

    tracer.id_generator = GivenOutIdGenerator()


def _hosts_tracer_provider() -> "TracerProvider | None":
    """Return the provider that the host application has set up, otherwise None; this check does not import the SDK."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    provider: Any = trace.get_tracer_provider()
    if sdk is not None and isinstance(provider, sdk.TracerProvider):
        from dkist_processing_core.tracing._providers import carrying_identity  # noqa: PLC0415 - as above

        return carrying_identity(provider)
    is_set = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    return provider if is_set else None
