"""
The doctor's checks of telemetry: the destination of each signal, whether a collector accepts connections there, and
what waits for it.

Not here: the exported telemetry (tracing), and its delivery (otlp).
"""

from collections.abc import Callable, Iterator
from functools import cache

from dkist_processing_core.cli.doctor.check import Check, ok, skipped, wrong
from dkist_processing_core.errors import ConfigurationError, JournalError
from dkist_processing_core.otlp import SIGNALS, Signal, address_of, endpoint_of, named_by, problem_at, protocol_of
from dkist_processing_core.otlp.options import options_of, url_of
from dkist_processing_core.outbox import telemetry_journals
from dkist_processing_core.settings.addresses import near_miss
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing import config_file_of, problem_of_config_file

_CONNECT_SECONDS = 2.0
_DELIVERY = (
    "the next launcher or run delivers it while the collector can be reached; `dkist-core outbox drain` does so now, "
    "`dkist-core outbox relay` continuously"
)
_NOWHERE = "nothing is exported"
_TO_EXPORT = "to export, name a collector in OTEL_EXPORTER_OTLP_ENDPOINT, or as {key} in MESH_CONFIG"


def check_collectors(settings: Settings) -> Iterator[Check]:
    """Yield for each signal its destination, and whether a connection is accepted there."""
    if settings.otel_sdk_disabled:
        yield skipped("telemetry", "turned off by OTEL_SDK_DISABLED")
        return
    if (named := config_file_of(settings)) is not None:
        problem = problem_of_config_file(settings)
        if problem is None:
            detail = (
                f"the telemetry of tasks and handlers is as the file {named[1]} describes, which {named[0]} names; "
                "it is not tried here; services follow the other variables"
            )
            yield skipped("config file", detail)
            return
        found, _, advice = problem.partition(": ")
        yield wrong("config file", found, advice)
    # The signals often share a collector, to which only one connection is tried.
    connect = cache(lambda host, port: problem_at(host, port, _CONNECT_SECONDS))
    checks = [_check_signal(settings, signal, connect) for signal in SIGNALS]
    if all(check.detail == _NOWHERE for check in checks):
        checks = [skipped("telemetry", _NOWHERE, _TO_EXPORT.format(key="otlp-traces-endpoint (for each signal)"))]
    yield from checks
    yield from _check_journals(settings)


def _check_journals(settings: Settings) -> Iterator[Check]:
    """Yield what waits for the collectors of the settings, and what was lost; nothing without a journal."""
    try:
        found = next((state for state in telemetry_journals(settings) if state.is_current), None)
    except JournalError:
        # The cause is the folder, which another check reports.
        return
    if found is None:
        return
    if found.books is None:
        yield wrong("telemetry", found.problem or "", "make the file usable for this user, or remove it")
        return
    pending, refused, dropped = (
        sum(getattr(books, name) for books in found.books.values()) for name in ("pending", "refused", "dropped")
    )
    detail = f"{found.path} can be read; pending: {pending}, refused: {refused}, dropped: {dropped}"
    yield ok("telemetry", detail, _DELIVERY if pending else None)


def _check_options(settings: Settings, signal: Signal) -> str | None:
    """Return what is wrong with the variables that only a delivery reads."""
    try:
        options_of(settings, signal)
        if protocol_of(settings, signal) != "grpc":
            url_of(settings, signal)
    except ConfigurationError as error:
        return str(error)
    return None


def _check_signal(settings: Settings, signal: Signal, connect: Callable[[str, int], str | None]) -> Check:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    exporter = getattr(settings, f"otel_{signal}_exporter")
    if exporter in ("none", "console"):
        where = "not exported" if exporter == "none" else "written to the console"
        return skipped(signal, f"{where}: {variable} is {exporter}")
    key = f"otlp-{signal}-endpoint"
    if endpoint_of(settings, signal) is None and (name := near_miss(key, settings.mesh_config)) is not None:
        return wrong(signal, f"MESH_CONFIG names {name!r}, expected {key!r}", "correct the name")
    if endpoint_of(settings, signal) is None and exporter is None:
        return skipped(signal, _NOWHERE, _TO_EXPORT.format(key=key))
    host, port = address_of(settings, signal)
    named = named_by(settings, signal)
    found = f"{host}:{port} ({protocol_of(settings, signal)}, named by {named})"
    problem = _check_options(settings, signal)
    if problem is not None:
        return wrong(signal, problem)
    problem = connect(host, port)
    if problem is None:
        return ok(signal, f"a connection is accepted at {found}")
    return wrong(signal, f"no connection to {found}: {problem}", f"start the collector there, or correct {named}")
