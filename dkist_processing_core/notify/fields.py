"""
The kinds of fields in the file of the routes, and the secrets that it names.

Not here: the fields themselves (routes).
"""

import os
from contextlib import suppress
from datetime import time
from email.utils import getaddresses
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dkist_processing_core.consumer.since import duration_of
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.events import Cause
from dkist_processing_core.notify.occurrences import COUNTED
from dkist_processing_core.text import redact

ELSEWHERE = "{ variable = 'NAME' } or { file = '/path' }, since the file holds no secret"
"""What is expected where a secret is needed."""
# Addresses that are secrets by themselves.
_SECRET_HOSTS = ("hooks.slack.com", "discord.com", "webhook.office.com")


def wrong(expected: str) -> PydanticCustomError:
    """Return the error of a value, of which the message has what is expected."""
    return PydanticCustomError("expected", "expected {expected}", {"expected": expected})


def _seconds(value: Any) -> Any:
    found = duration_of(value) if isinstance(value, str) else None
    if not found:
        raise wrong("a duration as '90s', '15m', '2h' or '1d'")
    return found.total_seconds()


def _time_of_day(value: Any) -> Any:
    with suppress(ValueError):
        if isinstance(value, str) and (found := time.fromisoformat(value)).tzinfo is None:
            return found
    raise wrong("a time of day between quotes, as '22:00'")


def _event(value: str) -> str:
    if value not in COUNTED:
        raise wrong(f"one of {', '.join(COUNTED)}")
    return value


def _cause(value: str) -> str:
    if value not in list(Cause):
        raise wrong(f"one of {', '.join(Cause)}")
    return value


def _line(value: str) -> str:
    if not value or not value.isprintable():
        raise wrong("one line of printable characters")
    return value


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise wrong("the path of a file")
    return Path((info.context or {}).get("folder", ""), value)


def _mail_address(value: str) -> str:
    found = [address.rpartition("@") for _, address in getaddresses([value])]
    if len(found) != 1 or not all(found[0]) or any(map(str.isspace, "".join(found[0]))):
        raise wrong("one mail address, as 'Name <name@example.com>'")
    return value


EventName = Annotated[str, AfterValidator(_event)]
CauseName = Annotated[str, AfterValidator(_cause)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Line = Annotated[str, AfterValidator(_line)]
FilePath = Annotated[Path, BeforeValidator(_path)]
MailAddress = Annotated[Line, AfterValidator(_mail_address)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Table(BaseModel):
    """A table of the file, in which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Secret(Table):
    """Where a secret is read when it is needed: an environment variable, or a file."""

    variable: Line | None = None
    file: FilePath | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.variable is None) == (self.file is None):
            raise wrong(ELSEWHERE)
        return self

    def read(self) -> str:
        """
        Return the secret, without the whitespace around it.

        Raises:
            ConfigurationError: It is missing, or has a line break inside.
        """
        if self.file is None:
            assert self.variable is not None
            found, where = os.environ.get(self.variable, ""), f"the variable {self.variable}"
        else:
            where = f"the file {self.file}"
            try:
                found = self.file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                msg = f"{where} of a secret cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
                raise ConfigurationError(msg) from None
        found = found.strip()
        if not found or not found.isprintable():
            msg = f"{where} of a secret is {'empty' if not found else 'of several lines'}, expected one line"
            raise ConfigurationError(msg)
        return found


def is_url(value: str) -> bool:
    """Return True for an address of a webhook."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _url(value: str) -> str:
    if not is_url(value):
        raise wrong("an address as https://host/path")
    parts = urlsplit(value)
    if redact(value, ()) != value or any(str(parts.hostname).endswith(host) for host in _SECRET_HOSTS):
        raise wrong(ELSEWHERE)
    return value


def _secret_table(value: Any) -> Any:
    if isinstance(value, str):
        raise wrong(ELSEWHERE)
    return value


Password = Annotated[Secret, BeforeValidator(_secret_table)]


def _form(value: Any) -> str:
    return "table" if isinstance(value, dict | Secret) else "text"


_Elsewhere = Annotated[Secret, Tag("table")]
Address = Annotated[Annotated[str, AfterValidator(_url), Tag("text")] | _Elsewhere, Discriminator(_form)]
Header = Annotated[Annotated[Line, Tag("text")] | _Elsewhere, Discriminator(_form)]
