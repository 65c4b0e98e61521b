"""
The doctor's questions about telemetry: where each signal goes, and whether somebody listens there.

Not here: what is exported (tracing).
"""

import socket
from collections.abc import Callable, Iterator
from functools import cache
from urllib.parse import urlsplit

from dkist_processing_core.cli._check import Check, ok, skipped, wrong
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.tracing import SIGNALS, Signal, endpoint_of

_CONNECT_SECONDS = 2.0
_NOWHERE = "nothing is exported"
_DEFAULT_PORTS = {"grpc": 4317, "http/protobuf": 4318}
_TO_EXPORT = "to export, name a collector: by OTEL_EXPORTER_OTLP_ENDPOINT, or by {key} in MESH_CONFIG"


def check_collectors(settings: DKISTProcessingCoreConfiguration) -> Iterator[Check]:
    """Say of each signal where it goes, and whether a connection is taken there."""
    if settings.otel_sdk_disabled:
        yield skipped("telemetry", "turned off by OTEL_SDK_DISABLED")
        return
    # The signals often share a collector, which is knocked at once.
    problem_at = cache(_problem_at)
    checks = [_check_signal(settings, signal, problem_at) for signal in SIGNALS]
    if all(check.detail == _NOWHERE for check in checks):
        checks = [skipped("telemetry", _NOWHERE, _TO_EXPORT.format(key="otlp-traces-endpoint and its like"))]
    yield from checks


def _check_signal(
    settings: DKISTProcessingCoreConfiguration, signal: Signal, problem_at: Callable[[str, int], str | None]
) -> Check:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    exporter = getattr(settings, f"otel_{signal}_exporter")
    if exporter in ("none", "console"):
        where = "not exported" if exporter == "none" else "written to the console"
        return skipped(signal, f"{where}: {variable} is {exporter}")
    endpoint, named_by = endpoint_of(settings, signal), _named_by(settings, signal)
    if endpoint is None and exporter is None:
        return skipped(signal, _NOWHERE, _TO_EXPORT.format(key=f"otlp-{signal}-endpoint"))
    protocol = _protocol(settings, signal)
    host, port = _address(endpoint, protocol)
    found = f"{host}:{port} ({protocol}, named by {named_by})"
    problem = problem_at(host, port)
    if problem is None:
        return ok(signal, f"somebody listens at {found}")
    return wrong(signal, f"nobody answers at {found}: {problem}", f"start the collector there, or correct {named_by}")


def _named_by(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> str:
    """Return the name of the variable that says where a signal goes."""
    for field in (f"otel_exporter_otlp_{signal}_endpoint", "otel_exporter_otlp_endpoint"):
        if getattr(settings, field):
            return field.upper()
    key = f"otlp-{signal}-endpoint"
    return f"{key} in MESH_CONFIG" if key in settings.mesh_config else f"OTEL_{signal.upper()}_EXPORTER alone"


def _protocol(settings: DKISTProcessingCoreConfiguration, signal: Signal) -> str:
    if "MESH_CONFIG" in _named_by(settings, signal):
        return "grpc"
    named = getattr(settings, f"otel_exporter_otlp_{signal}_protocol") or settings.otel_exporter_otlp_protocol
    return str(named or "grpc")


def _address(endpoint: str | None, protocol: str) -> tuple[str, int]:
    """Return host and port of an endpoint; the protocol's own port where it names none."""
    parts = urlsplit(endpoint if endpoint and "://" in endpoint else f"//{endpoint or 'localhost'}")
    return parts.hostname or "localhost", parts.port or _DEFAULT_PORTS[protocol]


def _problem_at(host: str, port: int) -> str | None:
    """Return why no connection can be made; None where one can."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)
