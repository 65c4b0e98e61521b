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
from typing import Any
from urllib.parse import urlsplit

EXPORTERS = frozenset({"otlp", "console"})


class WrongPartError(ValueError):
    """A part of a JSON text is wrong: what was found there, and what was expected."""

    def __init__(self, found: str, expected: str) -> None:
        """Store the two texts; `found` may hold a secret."""
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


def json_object(value: Any) -> Any:
    """Return the object that a JSON text holds; a value that is no text is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value, object_pairs_hook=_once_each)
    except RecursionError:
        parsed = None
    if not isinstance(parsed, dict):
        msg = "not a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError, and lets a TypeError through
    return parsed


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these keys and values; JSON's own reader would keep the last of equal keys."""
    parsed: dict[str, Any] = {}
    for name, value in pairs:
        if name in parsed:
            found = f"{json.dumps(name)} twice"
            raise WrongPartError(found, "it once")
        parsed[name] = value
    return parsed


def endpoint(value: str | None) -> str | None:
    """Check the URL of a collector; an empty one is None."""
    if not value:
        return None
    parts = urlsplit(value)
    if not (parts.scheme in {"http", "https"} and parts.hostname) and "://" in value:
        msg = "not an http or https URL"
        raise ValueError(msg)
    # Raises a ValueError for a port that is no number, or too large; without a scheme, an address comes first.
    _ = (parts if "://" in value else urlsplit(f"//{value}")).port
    return value


def web_address(value: str | None) -> str | None:
    """Check the URL of a web service, in which a path may follow the host; an empty one is None."""
    if not value:
        return None
    parts = urlsplit(value)
    # Credentials in a URL would be shown wherever the address is.
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        msg = "not the URL of a web service"
        raise ValueError(msg)
    _ = parts.port
    return text(value).rstrip("/")


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


def never(value: str) -> Any:
    """Refuse every text: the settings class reads it."""
    raise ValueError(value)
