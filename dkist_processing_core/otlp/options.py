"""
What a delivery needs to know beyond an address: headers, timeout, compression, certificates and credentials.

The variables are those of https://opentelemetry.io/docs/specs/otel/protocol/exporter/, with the values that they had
when the settings were read. None of them is ever stored. Not here: address and protocol (destination).
"""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.otlp.destination import Signal, endpoint_of, is_plain, named_by, protocol_of, shown_endpoint
from dkist_processing_core.settings.interface import Settings

_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROVIDERS = "opentelemetry_otlp_credential_provider"
CONNECT_SECONDS = 2.0
"""How long a collector may take to accept a connection."""
_DEFAULT_SECONDS = 10.0
# The specification counts milliseconds, and OpenTelemetry's SDK for Python seconds. Both are in use.
_FIRST_IN_MILLISECONDS = 1000.0
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, compresslevel=6),
    "deflate": zlib.compress,
    "none": lambda body: body,
}
"""What compresses a body, by its name in the variables; the first one is the default."""
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one signal is delivered."""

    is_secure: bool
    """Whether to use TLS."""
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    """The limit for one request, in seconds."""
    compression: str
    """One of `COMPRESSIONS`."""
    certificate: Path | None
    """The file of the trusted certificate authorities; None for the usual ones."""
    client_certificate: Path | None
    client_key: Path | None


def options_of(settings: Settings, signal: Signal) -> Options:
    """
    Return how a signal is delivered.

    Raises:
        ConfigurationError: A variable has an unusable value.
    """
    if protocol_of(settings, signal) == "grpc":
        _refuse_grpc_provider(settings, signal)
    return Options(
        is_secure=_is_secure(settings, signal),
        headers=_headers(*_variable(settings, signal, "HEADERS")),
        timeout=_timeout(*_variable(settings, signal, "TIMEOUT")),
        compression=_compression(*_variable(settings, signal, "COMPRESSION")),
        certificate=_file(settings, signal, "CERTIFICATE"),
        client_certificate=_file(settings, signal, "CLIENT_CERTIFICATE"),
        client_key=_file(settings, signal, "CLIENT_KEY"),
    )


def url_of(settings: Settings, signal: Signal) -> str:
    """
    Return the URL of a signal over HTTP: its own variable names it exactly, the general one names the base.

    A query of the general one is kept, behind the path of the signal.

    Raises:
        ConfigurationError: The endpoint is no URL.
    """
    special = getattr(settings, f"otel_exporter_otlp_{signal}_endpoint")
    endpoint = endpoint_of(settings, signal) or shown_endpoint(settings, signal)
    if "://" not in endpoint:
        # A port may be followed by a path, but neither holds a secret.
        msg = f"{_PREFIX}ENDPOINT: found {shown_endpoint(settings, signal)} without http:// or https://"
        raise ConfigurationError(f"{msg}, expected a URL for the protocol http/protobuf")
    parts = urlsplit(endpoint)
    base = parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}", fragment="")
    return endpoint if special else base.geturl()


def provided_session(settings: Settings, signal: Signal) -> Any:
    """
    Return the session of requests from an installed provider that the variables name; None if they name none.

    Raises:
        ConfigurationError: No such provider is installed.
    """
    # The import is here, since it takes 10 ms, and few processes need it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    variable, name = _provider(settings, signal, "HTTP")
    if not name:
        return None
    for found in entry_points(group=_PROVIDERS, name=name):
        return found.load()()
    msg = f"{variable}: found {name}, expected an entry point of the group {_PROVIDERS}; install its package"
    raise ConfigurationError(msg)


def _refuse_grpc_provider(settings: Settings, signal: Signal) -> None:
    variable, name = _provider(settings, signal, "GRPC")
    if name:
        msg = f"{variable}: found {name}, whose credentials only gRPC's own library can use; expected {_PREFIX}HEADERS,"
        raise ConfigurationError(f"{msg} {_PREFIX}CLIENT_CERTIFICATE or the protocol http/protobuf instead")


def _provider(settings: Settings, signal: Signal, transport: str) -> tuple[str, str]:
    for of_signal in (f"{signal.upper()}_", ""):
        variable = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_{of_signal}CREDENTIAL_PROVIDER"
        if name := settings.core_origin.environ.get(variable):
            return variable, name
    return "", ""


def _variable(settings: Settings, signal: Signal, name: str) -> tuple[str, str]:
    """Return the name and the value of a signal's own variable, or else of the general one."""
    environ = settings.core_origin.environ
    for variable in (f"{_PREFIX}{signal.upper()}_{name}", f"{_PREFIX}{name}"):
        value = environ.get(variable, "").strip()
        if value:
            return variable, value
    return f"{_PREFIX}{name}", ""


def _is_secure(settings: Settings, signal: Signal) -> bool:
    scheme, found, _ = (endpoint_of(settings, signal) or "http://").partition("://")
    if found:
        if scheme not in ("http", "https"):
            msg = f"{named_by(settings, signal)}: found the scheme {scheme}, expected http or https"
            raise ConfigurationError(msg)
        return scheme == "https"
    _, insecure = _variable(settings, signal, "INSECURE")
    return not is_plain(settings, signal) and insecure.lower() != "true"


def _headers(variable: str, value: str) -> Mapping[str, str]:
    headers = {}
    for number, pair in enumerate(value.split(","), start=1):
        if not pair.strip():
            continue
        name, equals, content = (unquote(part).strip() for part in pair.partition("="))
        name = name.lower()
        if not equals or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(content):
            msg = f"{variable}: found header {number} in another form, expected name=value pairs, separated by commas"
            raise ConfigurationError(f"{msg}, with special characters as in URLs")
        headers[name] = content
    return headers


def _timeout(variable: str, value: str) -> float:
    try:
        found = float(value or _DEFAULT_SECONDS)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        msg = f"{variable}: found {value}, expected a number of seconds above 0, or of milliseconds from 1000"
        raise ConfigurationError(msg)
    return found / _FIRST_IN_MILLISECONDS if found >= _FIRST_IN_MILLISECONDS else found


def _compression(variable: str, value: str) -> str:
    found = value.lower() or next(iter(COMPRESSIONS))
    if found not in COMPRESSIONS:
        msg = f"{variable}: found {value}, expected one of {', '.join(COMPRESSIONS)}"
        raise ConfigurationError(msg)
    return found


def _file(settings: Settings, signal: Signal, name: str) -> Path | None:
    variable, value = _variable(settings, signal, name)
    if not value:
        return None
    try:
        path = settings.absolute(Path(value))
        with path.open("rb"):
            return path
    except (OSError, LookupError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"{variable}: found {value}, which cannot be read ({reason}), expected the path of a PEM file"
        raise ConfigurationError(msg) from error
