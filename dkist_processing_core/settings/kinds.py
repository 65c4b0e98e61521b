"""
The kinds of values that settings may have, each a function that reads the text of a variable.

The settings class uses the functions that check a text. The others accept only a text that needs no interpretation,
such as a number without spaces. They raise a ValueError for every other text, which the settings class then reads. Not
here: the settings (declarations).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ISB_SERVICE = "interservice-bus"
OWN_SERVICES = frozenset({ISB_SERVICE, *(f"otlp-{signal}-endpoint" for signal in ("traces", "metrics", "logs"))})
"""The services of `MESH_CONFIG` that this package uses itself; all others belong to clients."""
EXPORTERS = frozenset({"otlp", "console"})
MAX_PORT = 65535


class Address(NamedTuple):
    """Where a service is reached."""

    host: str
    port: int


def host_name(value: str) -> str:
    """Check a host name or address."""
    if not re.fullmatch(r"[\w.-]+", value):
        import ipaddress  # noqa: PLC0415 - rare: a name needs no look at the forms of addresses

        try:
            ipaddress.ip_address(value.removeprefix("[").removesuffix("]"))
        except ValueError:
            # A URL here may hold a password, and would be shown wherever the address is shown.
            msg = "not a host name or address"
            raise ValueError(msg) from None
    return value


def json_object(value: Any) -> Any:
    """Return the object that a JSON text holds; a value that is no text is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except RecursionError:
        parsed = None
    if not isinstance(parsed, dict):
        msg = "not a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError, and lets a TypeError through
    return parsed


def endpoint(value: str | None) -> str | None:
    """Check the URL of a collector; an empty one is None."""
    if not value:
        return None
    parts = urlsplit(value)
    if not (parts.scheme in {"http", "https"} and parts.hostname) and "://" in value:
        msg = "not an http or https URL"
        raise ValueError(msg)
    return value


def exporters(value: str | None) -> str | None:
    """Check a list of exporters, and return it in its plain form."""
    if value is None:
        return None
    names = [name.strip().lower() for name in value.split(",")]
    if names != ["none"] and not EXPORTERS.issuperset(names):
        msg = "not a list of exporters"
        raise ValueError(msg)
    return ",".join(dict.fromkeys(names))


def in_lower_case(value: Any) -> Any:
    """Return a text in lower case without the spaces around it; another value is returned as it is."""
    return value.strip().lower() if isinstance(value, str) else value


def is_true(value: Any) -> bool:
    """Return True for "true": by OpenTelemetry's specification, every other value means false."""
    return in_lower_case(value) in (True, "true")


# The functions below accept a text that needs no interpretation.


def text(value: str) -> str:
    """Return a text that is valid UTF-8."""
    value.encode()
    return value


def path(value: str) -> Path:
    """Return a path."""
    return Path(text(value))


def whole(value: str) -> int:
    """Return a whole number."""
    number = int(value)
    if str(number) != value:
        msg = "not the usual form of a whole number"
        raise ValueError(msg)
    return number


def number(value: str) -> float:
    """Return a number without a sign and an exponent."""
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value):
        msg = "not the usual form of a number"
        raise ValueError(msg)
    return float(value)


def yes_or_no(value: str) -> bool:
    """Return True or False for the usual words."""
    return one_of("false", "true", "0", "1")(value.lower()) in {"true", "1"}


def one_of(*names: str) -> Callable[[str], str]:
    """Return a function that accepts these names."""

    def named(value: str) -> str:
        if value not in names:
            msg = f"not one of {names}"
            raise ValueError(msg)
        return value

    return named


def addresses(value: str) -> dict[str, Address]:
    """Return the addresses of services by their names."""
    return {text(name): _address(name, service) for name, service in json_object(text(value)).items()}


def _address(name: str, service: Any) -> Address:
    match service:
        case {"mesh_address": str(found), "mesh_port": int(port)} if name not in OWN_SERVICES:
            return Address(found, port)
        case {"mesh_address": str(found), "mesh_port": int(port)} if type(port) is int and 0 <= port <= MAX_PORT:
            return Address(host_name(text(found)), port)
    msg = "not the usual form of an address"
    raise ValueError(msg)


def never(value: str) -> Any:
    """Refuse every text: the settings class reads it."""
    raise ValueError(value)
