"""
The set-up of a process's telemetry by the settings, one signal at a time.

Not here: the providers and their exporters (_providers, _otlp), and the spans, metrics and log records (_telemetry).
"""

import atexit
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from dkist_processing_core import budget
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.otlp import OtlpJournal
from dkist_processing_core.journal.place import open_folder, place
from dkist_processing_core.otlp.destination import (
    SIGNALS,
    Signal,
    collector_of,
    destination_of,
    endpoint_of,
    journal_path,
)
from dkist_processing_core.process import forks
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact
from dkist_processing_core.tracing._batches import Batches
from dkist_processing_core.tracing._config_file import config_file_of, problem_of_config_file, providers_of_file
from dkist_processing_core.tracing._executed import DELTA, PREFERENCE, executed_once
from dkist_processing_core.tracing._meter_provider import LazyMeterProvider, hosts_meter_provider
from dkist_processing_core.tracing._telemetry import Telemetry, chosen_ids, given_out_ids
from dkist_processing_core.tracing._telemetry_journal import TelemetryJournal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)
# The providers of a fork are those of its parent process, and append to these.
_batches: dict[Path, Batches] = {}
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
    hosts: dict[Signal, Any] = {"traces": _hosts_tracer_provider(), "metrics": hosts_meter_provider()}
    if (named := config_file_of(settings)) is not None and hosts["traces"] is None:
        problem = problem_of_config_file(settings)
        if problem is None:
            return _set_up_by_file(settings, named[1])
        logger.warning("%s", redact(problem, also=secrets))
    exporters = {signal: _exporters_of(settings, signal) for signal in SIGNALS}
    own = [signal for signal in SIGNALS if exporters[signal] and not hosts.get(signal)]
    is_journalled = any("otlp" in exporters[signal] for signal in own)
    # A fork has the providers of its parent process.
    is_of_fork = bool(_batches) and journal_path(settings) in _batches
    batches = _open_batches(settings) if is_journalled or is_of_fork else None
    providers = {signal: provider for signal, provider in hosts.items() if signal == "traces" or exporters[signal]}
    for signal in own:
        make = functools.partial(_made, settings, signal, exporters[signal], batches, secrets)
        providers[signal] = _lazy_meter_provider(make) if signal == "metrics" else make()
    telemetry = Telemetry(
        providers.get("traces"),
        providers.get("metrics"),
        providers.get("logs"),
        batches=batches,
        exporting=[
            signal for signal in SIGNALS if signal not in own or batches is None or "console" in exporters[signal]
        ],
        deliver=functools.partial(_deliver, settings),
        collectors={
            signal: collector
            for signal in SIGNALS
            if exporters[signal] == ["otlp"] and batches is None and (collector := collector_of(settings, signal))
        },
        secrets=secrets,
    )
    telemetry.temporality = settings.core_origin.environ.get(PREFERENCE) or DELTA
    telemetry.has_own_spans = telemetry.is_tracing and hosts["traces"] is None
    if batches is not None and "metrics" in own and exporters["metrics"] == ["otlp"]:
        telemetry.keep_executed = functools.partial(_keep_executed, settings, batches, telemetry.temporality)
    _use_given_out_ids(telemetry.tracer)
    return telemetry


def _keep_executed(settings: Settings, batches: Batches, temporality: str, attributes: Mapping[str, Any]) -> None:
    from dkist_processing_core.tracing._providers import resource_of  # noqa: PLC0415 - nothing is exported by default

    batches.journal.keep("metrics", 1, executed_once(resource_of(settings), attributes, temporality))
    batches.journal.append_pending()


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


def _open_batches(settings: Settings) -> Batches | None:
    """Return what appends to the journal of telemetry; None if that cannot be used."""
    path = journal_path(settings)
    if path not in _batches:
        batches = Batches(TelemetryJournal(functools.partial(_open_journal, settings)))
        try:
            batches.journal.open(budget.TELEMETRY_JOURNAL_SECONDS)
        except JournalError as error:
            logger.warning(
                "telemetry is not kept in a journal, and is lost if its collector does not answer: %s", error
            )
            return None
        # What is recorded after the last task, such as by the author's own functions at the exit.
        atexit.register(batches.append_at_exit)
        _batches[path] = batches
    return _batches[path]


def _open_journal(settings: Settings, patience: float) -> OtlpJournal:
    open_folder(place(settings))
    journal = OtlpJournal.open(journal_path(settings), destination=destination_of(settings), patience=patience)
    try:
        journal.check_room()
    except JournalError:
        journal.close()
        raise
    return journal


def _deliver(settings: Settings, seconds: float) -> None:
    from dkist_processing_core.otlp.drainer import deliver_own  # noqa: PLC0415 - a launched task does not deliver

    deliver_own(settings, journal_path(settings), seconds)


def _made(
    settings: Settings, signal: Signal, exporters: list[str], batches: Batches | None, secrets: list[str]
) -> Any | None:
    """Return the provider of a signal; None, and a warning, if it cannot be made."""
    # Here the SDK checks, in its own way, the variables that only it reads, such as OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT.
    try:
        with _variables_of(settings):
            return _provider_of(settings, signal, exporters, batches)
    except Exception as error:  # noqa: BLE001 - no error of telemetry may reach the task
        reason = redact(f"{type(error).__name__}: {error}", also=secrets)
        logger.warning("%s are not exported: %s", signal, reason)
        return None


def _lazy_meter_provider(make: Callable[[], Any]) -> LazyMeterProvider:
    """Return this process's provider, which its fork has already."""
    provider = metrics.get_meter_provider()
    if not isinstance(provider, LazyMeterProvider):
        provider = LazyMeterProvider(make)
        metrics.set_meter_provider(provider)
    return provider


def _provider_of(settings: Settings, signal: Signal, exporters: list[str], batches: Batches | None) -> Any:
    from dkist_processing_core.tracing import _providers  # noqa: PLC0415 - nothing is exported by default

    makers = {
        "traces": _providers.tracer_provider,
        "metrics": _providers.meter_provider,
        "logs": _providers.logger_provider,
    }
    return makers[signal](settings, exporters, batches)


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
