"""
The file of the routes: which events are counted for which receiver, and how the receiver is reached.

Not here: counting (grouping), and reaching the receiver (webhook, mail, command).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator, model_validator

from dkist_processing_core.consumer import matches
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.notify.fields import (
    ELSEWHERE,
    Address,
    CauseName,
    EventName,
    FilePath,
    Header,
    Line,
    MailAddress,
    Password,
    Port,
    Seconds,
    Secret,
    Table,
    TimeOfDay,
    wrong,
)
from dkist_processing_core.notify.groups import Rule
from dkist_processing_core.notify.occurrences import COUNTED, Occurrence
from dkist_processing_core.notify.quiet_hours import is_within
from dkist_processing_core.settings.toml_file import toml_in
from dkist_processing_core.text import is_secret_name, show

EXAMPLE = "config/notify.example.toml"
_LONGEST_NAME = 50
# A value in one of these may be a secret at the wrong place.
_MAY_BE_SECRET = {"url", "headers", "password", "variable", "file", "argv"}


class Webhook(Table):
    """A receiver over HTTP."""

    url: Address
    format: Literal["slack", "cloudevents"]
    headers: dict[Line, Header] = Field(default_factory=dict)
    ca: FilePath | None = None
    timeout: Seconds = 10.0

    @field_validator("headers")
    @classmethod
    def _secrets_are_elsewhere(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, content in value.items():
            if isinstance(content, str) and (
                is_secret_name(name) or "auth" in name.lower() or "cookie" in name.lower()
            ):
                raise wrong(f"{name} = {ELSEWHERE}")
        return value


class Email(Table):
    """Receivers of mail."""

    host: Line
    port: Port
    security: Literal["starttls", "tls", "none"]
    user: Line | None = None
    password: Password | None = None
    sender: MailAddress
    recipients: Annotated[list[MailAddress], Field(min_length=1)]
    ca: FilePath | None = None
    timeout: Seconds = 30.0

    @model_validator(mode="after")
    def _protects_the_password(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise wrong("user and password, or neither")
        if self.user is not None and self.security == "none":
            raise wrong("security = 'starttls' or 'tls' beside a password")
        return self


class Command(Table):
    """A program that gets the notice on its standard input."""

    argv: Annotated[list[str], Field(min_length=1)]
    variables: list[Line] = Field(default_factory=list)
    """The variables of the environment that it gets beside the usual ones."""
    timeout: Seconds = 30.0


class QuietHours(Table):
    """The hours of each day in which notices are held."""

    begin: TimeOfDay
    end: TimeOfDay
    timezone: str = "UTC"
    never_held: list[EventName] = Field(default_factory=list)

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, OSError, ValueError) as error:  # by the form of an unknown name
            raise wrong("the name of a time zone, as 'Pacific/Honolulu'") from error
        return value

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.begin == self.end:
            raise wrong("an end that differs from the begin")
        return self


class Route(Table):
    """Which events are counted for one receiver, and how the receiver is reached."""

    events: list[EventName] = Field(default=list(COUNTED), min_length=1)
    workflows: list[Line] = Field(default=["*"], min_length=1)
    tasks: list[Line] | None = None
    causes: list[CauseName] | None = None
    final_only: bool = False
    smallest_group: Annotated[int, Field(ge=1)] = 1
    most_at_once: Annotated[int, Field(ge=1)] = 10
    window: Seconds = 300.0
    clear_after: Seconds = 900.0
    quiet_hours: QuietHours | None = None
    webhook: Webhook | None = None
    email: Email | None = None
    command: Command | None = None

    @model_validator(mode="after")
    def _has_one_receiver(self) -> Self:
        if sum(each is not None for each in (self.webhook, self.email, self.command)) != 1:
            raise wrong("one of webhook, email and command")
        return self

    def wants(self, occurrence: Occurrence) -> bool:
        """Return True if an occurrence is counted for the route."""
        return (
            occurrence.event in self.events
            and any(matches(pattern, occurrence.workflow) for pattern in self.workflows)
            and (self.tasks is None or any(matches(pattern, occurrence.task or "") for pattern in self.tasks))
            and (self.causes is None or occurrence.cause in self.causes)
            and (occurrence.is_final or not self.final_only)
        )

    @property
    def rule(self) -> Rule:
        """How it groups."""
        quiet = self.quiet_hours
        return Rule(
            window=self.window,
            clear_after=self.clear_after,
            smallest_group=self.smallest_group,
            most_at_once=self.most_at_once,
            is_quiet=lambda now: quiet is not None and is_within(now, quiet.begin, quiet.end, quiet.timezone),
            never_held=frozenset(quiet.never_held if quiet is not None else ()),
        )

    @property
    def secrets(self) -> list[Secret]:
        """The secrets that it needs."""
        found: list[Any] = []
        if self.webhook is not None:
            found = [self.webhook.url, *self.webhook.headers.values()]
        elif self.email is not None:
            found = [self.email.password]
        return [each for each in found if isinstance(each, Secret)]


def routes_in(path: Path) -> dict[str, Route]:
    """
    Return the routes of a file, by their names.

    Raises:
        ConfigurationError: It cannot be read, or a field is wrong; the message names each with its route, and no value
            that may be a secret.
    """
    content = toml_in(path, named_by="--notify and DKIST_CORE_NOTIFY", example=EXAMPLE)
    others = [show(name) for name in content if name != "routes"]
    tables = content.get("routes")
    if others or not isinstance(tables, dict) or not tables:
        found = ", ".join(others) or "no route"
        msg = f"{path}: found {found}, expected tables [routes.NAME] alone; {EXAMPLE} is an example"
        raise ConfigurationError(msg)
    routes, problems = {}, []
    for name, table in tables.items():
        if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()) or len(name) > _LONGEST_NAME:
            problems.append(
                f"found the route {show(name)}, expected a name of up to {_LONGEST_NAME} letters, digits, - and _"
            )
            continue
        try:
            # Paths are relative to the folder of the file.
            routes[name] = Route.model_validate(table, context={"folder": path.absolute().parent})
        except ValidationError as error:
            problems += [f"the route {name}, {problem}" for problem in _problems(error)]
    if problems:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}")
    return routes


def _problems(error: ValidationError) -> Iterator[str]:
    """Yield each problem as `field: found X, expected Y`, without a value that may be a secret at the wrong place."""
    for problem in error.errors():
        # The form of a field that has two is no part of its name.
        names = [str(part) for part in problem["loc"] if part not in ("text", "table")]
        field, found, kind = ".".join(names) or "its table", problem["input"], problem["type"]
        if kind == "missing":
            yield f"{field}: found nothing, expected this field"
        elif kind == "extra_forbidden":
            yield f"{field}: found a field of this name, expected one of {', '.join(_fields(names[:-1]))}"
        elif kind == "too_short":
            yield f"{field}: found an empty list, expected one or more"
        else:
            expected = problem["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
            is_shown = isinstance(found, str | int | float) and not _MAY_BE_SECRET & set(names)
            yield f"{field}: found {show(found) if is_shown else 'another value'}, {expected}"


def _fields(names: list[str]) -> list[str]:
    """Return the names of the fields of a table of a route."""
    tables: dict[str, type[Table]] = {"webhook": Webhook, "email": Email, "command": Command, "quiet_hours": QuietHours}
    if not names:
        return list(Route.model_fields)
    return list((tables[names[0]] if len(names) == 1 else Secret).model_fields)
