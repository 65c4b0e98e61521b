"""
The collector of each signal by the settings: its address and protocol, and whether it accepts connections.

Not here: the encoding of what is exported (tracing).
"""

import hashlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from dkist_processing_core.journal.otlp import otlp_path
from dkist_processing_core.journal.place import place
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text.redaction import SECRET_MIN_LENGTH

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
_SIGNALS_OF_7 = ("traces", "metrics")
_DEFAULT_PORTS = {"grpc": 4317, "http/protobuf": 4318}
_URL_PORTS = {"http": 80, "https": 443}
# Any other part of a path may be a token.
_WORD = re.compile(r"[a-z_-]{1,16}|v[0-9]{1,2}")


def endpoint_of(settings: Settings, signal: Signal) -> str | None:
    """Return the endpoint of a signal's collector from the standard variables or `MESH_CONFIG`; None without one."""
    named = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint") or settings.otel_exporter_otlp_endpoint
    if named:
        return str(named)
    service = settings.mesh_config.get(f"otlp-{signal}-endpoint")
    return f"http://{service.host}:{service.port}" if service else None


def named_by(settings: Settings, signal: Signal) -> str:
    """Return the name of the variable that sets the destination of a signal."""
    for field in (f"otel_exporter_otlp_{signal}_endpoint", "otel_exporter_otlp_endpoint"):
        if getattr(settings, field):
            return field.upper()
    key = f"otlp-{signal}-endpoint"
    return f"{key} in MESH_CONFIG" if key in settings.mesh_config else f"OTEL_{signal.upper()}_EXPORTER alone"


def protocol_of(settings: Settings, signal: Signal) -> str:
    """Return `grpc` or `http/protobuf`; collectors in `MESH_CONFIG` use gRPC, independent of the variables."""
    if "MESH_CONFIG" in named_by(settings, signal):
        return "grpc"
    named = getattr(settings, f"otel_exporter_otlp_{signal}_protocol") or settings.otel_exporter_otlp_protocol
    return str(named or "grpc")


def is_exported(settings: Settings, signal: Signal) -> bool:
    """Return True if a signal is exported over OTLP."""
    named = getattr(settings, f"otel_{signal}_exporter") or ("otlp" if endpoint_of(settings, signal) else "none")
    return not settings.otel_sdk_disabled and "otlp" in str(named).split(",")


def exports_telemetry(settings: Settings) -> bool:
    """Return True if any signal is exported over OTLP."""
    return any(is_exported(settings, signal) for signal in SIGNALS)


def destination_of(settings: Settings) -> str:
    """
    Return protocol and address of each signal's collector, one per line, without credentials.

    It names the journal of telemetry: processes with the same collectors share one, whichever signals they export.
    """
    return "\n".join(f"{each} {protocol_of(settings, each)} {shown_endpoint(settings, each)}" for each in SIGNALS)


def journal_path(settings: Settings) -> Path:
    """Return the path of the journal of telemetry for the collectors of the settings."""
    return otlp_path(place(settings).folder, destination_of(settings))


def lock_path(journal: Path, signal: Signal) -> Path:
    """Return the path of the lock that the process holds which delivers a signal from a journal."""
    return journal.with_name(f"{journal.stem}.{signal}.lock")


def shown_endpoint(settings: Settings, signal: Signal) -> str:
    """
    Return the address of a signal's collector without its secrets: it is stored, and shown to operators.

    User information and query are left out, as headers are: they may change, and the collector stays the same. A part
    of the path that may be a token is replaced by a digest, so that addresses can be told apart.
    """
    parts = _parts_of(endpoint_of(settings, signal) or "localhost")
    host, port = address_of(settings, signal)
    host = f"[{host}]" if ":" in host else host
    path = "/".join(_shown_part(part) for part in parts.path.rstrip("/").split("/"))
    return f"{parts.scheme or 'http'}://{host}:{port}{path}"


def _shown_part(part: str) -> str:
    return part if not part or _WORD.fullmatch(part) else f"[{hashlib.sha256(part.encode()).hexdigest()[:8]}]"


def hidden_parts(settings: Settings, signal: Signal) -> list[str]:
    """Return the parts of an endpoint that must not be shown; a collector may repeat them in an answer."""
    parts = _parts_of(endpoint_of(settings, signal) or "localhost")
    values = [pair.rpartition("=")[2] for pair in parts.query.split("&")]
    hidden = [part for part in parts.path.split("/") if _shown_part(part) != part]
    found = [*hidden, *values, parts.username or "", parts.password or ""]
    return [each for each in (*found, *map(unquote, found)) if len(each) >= SECRET_MIN_LENGTH]


def is_plain(settings: Settings, signal: Signal) -> bool | None:
    """
    Return True if a collector is used without TLS for another reason than its scheme; None if the scheme decides.

    A bare `host:port` in the variable of a signal meant plain text in 7.x, and the deployments of 7.x contain it. The
    specification requires TLS there (https://opentelemetry.io/docs/specs/otel/protocol/exporter/); its variables, or a
    scheme, select TLS.
    """
    if "MESH_CONFIG" in named_by(settings, signal):
        return True
    named = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint")
    if signal not in _SIGNALS_OF_7 or not named or "://" in named or protocol_of(settings, signal) != "grpc":
        return None
    names = ("INSECURE", "CERTIFICATE", "CLIENT_CERTIFICATE")
    variables = [f"OTEL_EXPORTER_OTLP_{of_signal}{each}" for of_signal in ("", f"{signal.upper()}_") for each in names]
    return None if any(settings.core_origin.environ.get(variable) for variable in variables) else True


def address_of(settings: Settings, signal: Signal) -> tuple[str, int]:
    """Return host and port of a signal's collector; without a port, that of the URL, or the protocol's own one."""
    endpoint, protocol = endpoint_of(settings, signal), protocol_of(settings, signal)
    parts = _parts_of(endpoint or "localhost")
    default = _DEFAULT_PORTS[protocol]
    if protocol == "http/protobuf" and parts.scheme:
        default = _URL_PORTS[parts.scheme]
    return parts.hostname or "localhost", parts.port or default


def _parts_of(endpoint: str) -> SplitResult:
    return urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")


def problem_at(host: str, port: int, timeout: float) -> str | None:
    """Return why no connection is accepted there within `timeout` seconds, or None if one is."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return None
    except OSError as error:
        return error.strerror or str(error)


@dataclass(frozen=True, slots=True)
class Collector:
    """The address at which a collector accepts connections."""

    host: str
    port: int

    def problem(self, timeout: float) -> str | None:
        """Return why no connection is accepted there within `timeout` seconds, or None if one is."""
        problem = problem_at(self.host, self.port, timeout)
        return None if problem is None else f"no connection to {self.host}:{self.port}: {problem}"


def collector_of(settings: Settings, signal: Signal) -> Collector | None:
    """Return a signal's collector, or None if its address is not contacted directly, as behind a proxy."""
    # The import is here, since it takes 20 ms, and only exporters need it.
    from urllib.request import getproxies  # noqa: PLC0415

    scheme = _parts_of(endpoint_of(settings, signal) or "").scheme
    is_direct = scheme in ("", "http", "https") and not getproxies()
    return Collector(*address_of(settings, signal)) if is_direct else None
