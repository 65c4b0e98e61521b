"""
The addresses of services: reading and checking the values of the setting `MESH_CONFIG`.

Both ways of reading the settings use these functions. Not here: the class that authors see (services).
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from dkist_processing_core.settings import kinds

ISB_SERVICE = "interservice-bus"
OWN_SERVICES = frozenset({ISB_SERVICE, *(f"otlp-{signal}-endpoint" for signal in ("traces", "metrics", "logs"))})
"""The services of `MESH_CONFIG` that this package uses itself; all others belong to clients."""
MAX_PORT = 65535
_ADDRESS_EXAMPLE = '{"mesh_address": "broker.example", "mesh_port": 5672}'
# Of 15 letters, one is missing, added or different, or two are in the wrong order.
_NEAR = 0.93


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


def addresses(value: Any) -> Any:
    """
    Return the addresses of services by their names; an address that is no JSON object is returned as it is.

    Raises:
        ValueError: The value is not a JSON object.
        WrongPartError: A part of it is wrong, or a name differs from that of the broker by a typing error.
    """
    services = kinds.json_object(value)
    if not isinstance(services, dict):
        return services
    if (name := near_miss(ISB_SERVICE, services)) is not None:
        raise kinds.WrongPartError(json.dumps(name), json.dumps(ISB_SERVICE))
    return {name: _address(name, service) for name, service in services.items()}


def near_miss(service: str, names: Iterable[str]) -> str | None:
    """Return the name that differs from that of a service by a typing error, unless the service itself is named."""
    if service in names:
        return None
    from difflib import SequenceMatcher  # noqa: PLC0415 - rare: most settings name all services, or none

    wanted = _letters(service)
    return next((name for name in names if SequenceMatcher(None, wanted, _letters(name)).ratio() > _NEAR), None)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _address(name: str, service: Any) -> Any:
    if isinstance(service, str | int | float | list | None):
        raise kinds.WrongPartError(f"{json.dumps(service)} as {json.dumps(name)}", f"an object as {_ADDRESS_EXAMPLE}")
    if not isinstance(service, dict):
        return service
    _check_keys(name, service)
    host, port = service["mesh_address"], service["mesh_port"]
    number = _whole_number(port)
    is_own = name in OWN_SERVICES
    if not isinstance(host, str) or (is_own and not _is_host_name(host)):
        raise kinds.WrongPartError(f"{_pair('mesh_address', host)} in {json.dumps(name)}", "a host name or an address")
    # Release 7.x accepts any number for a client's service.
    if number is None or (is_own and (isinstance(port, bool) or not 0 < number <= MAX_PORT)):
        raise kinds.WrongPartError(
            f"{_pair('mesh_port', port)} in {json.dumps(name)}", f"a whole number from 1 to {MAX_PORT}"
        )
    return Address(host, number)


def _check_keys(name: str, service: dict[str, Any]) -> None:
    missing = [key for key in ("mesh_address", "mesh_port") if key not in service]
    if missing:
        others = ", ".join(json.dumps(key) for key in service if key not in {"mesh_address", "mesh_port"})
        expected = " and ".join(json.dumps(key) for key in missing)
        raise kinds.WrongPartError(
            f"{others or f'no {expected}'} in {json.dumps(name)}", expected if others else _ADDRESS_EXAMPLE
        )


def _pair(key: str, value: Any) -> str:
    return f"{json.dumps(key)}: {json.dumps(value)}"


def _is_host_name(value: str) -> bool:
    try:
        host_name(kinds.text(value))
    except ValueError:
        return False
    return True


def _whole_number(value: Any) -> int | None:
    """Return a whole number that is a number or, as release 7.x accepts it, a text; None for any other value."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole else None
