"""
The file of expected starts: which workflow is expected to begin a run, at which times, and how late it may be.

Not here: whether a run began (watch.starts), and the option that names the file (settings.declarations).
"""

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from dkist_processing_core.consumer.since import duration_of
from dkist_processing_core.errors import ConfigurationError, ExtraMissingError
from dkist_processing_core.settings.toml_file import toml_in
from dkist_processing_core.text import show

_EXAMPLE = "config/expect.example.toml"
_FIELDS_OF_CRON = 5
_SCHEDULE = "minute, hour, day of the month, month and day of the week, as in '30 6 * * 1-5'"
# The bus has the events of so many days.
_LONGEST_GRACE = timedelta(days=7)
_GRACE = "a duration of at most seven days, as '90s', '45m', '2h' or '1d'"
_TIMEZONE = "the name of a time zone, as in 'Pacific/Honolulu'"
_NAME = "one or more characters between quotes"
_EXPECTATIONS = {
    "workflow": _NAME,
    "version": f"{_NAME}, or no field for all versions",
    "schedule": _SCHEDULE,
    "timezone": _TIMEZONE,
    "grace": _GRACE,
}


def _grace(value: Any) -> Any:
    found = duration_of(value) if isinstance(value, str) else None
    if found is None or found > _LONGEST_GRACE:
        raise PydanticCustomError("grace", "no duration")
    return found


class Expected(BaseModel):
    """One entry of the file: runs of a workflow that are expected to begin at the times of a schedule."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    workflow: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)] | None = None
    """The version of which a run is expected; None if a run of any version will do."""
    schedule: str
    timezone: str = "UTC"
    grace: Annotated[timedelta, BeforeValidator(_grace)]
    """How long after the expected time a run may begin."""

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, KeyError, ValueError) as error:  # an unknown name is one of these, by its form
            raise PydanticCustomError("timezone", "no time zone") from error
        return value

    @field_validator("schedule")
    @classmethod
    def _is_schedule(cls, value: str) -> str:
        error_class = _cron().CronSimError
        if len(value.split()) != _FIELDS_OF_CRON:
            raise PydanticCustomError("schedule", "not five fields")
        try:
            # A schedule that is never due, such as a 31st of February, is an error as well.
            next(_cron().CronSim(value, datetime(2000, 1, 1, tzinfo=UTC)))
        except (error_class, StopIteration) as error:
            raise PydanticCustomError("schedule", "no schedule") from error
        return value

    def times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """
        Yield the times in UTC at which a run is expected, later than `after` and up to `until`.

        The schedule is meant in the time zone of the entry. When clocks are set forward, a time of day that does not
        exist is replaced by the moment of the change. When they are set back, a fixed time of day is due once, the
        first time, and an hour of `*` twice.
        """
        times = _cron().CronSim(self.schedule, after.astimezone(ZoneInfo(self.timezone)))
        for each in itertools.takewhile(lambda time: time <= until, (time.astimezone(UTC) for time in times)):
            # Two times of day that do not exist are the same moment, and one that exists twice may be over.
            if each > after:
                yield each
                after = each

    def last(self, until: datetime) -> datetime:
        """Return the last time in UTC at which a run is expected, up to `until`."""
        later = until.replace(microsecond=0) + timedelta(seconds=1)
        found: datetime = next(_cron().CronSim(self.schedule, later.astimezone(ZoneInfo(self.timezone)), reverse=True))
        return found.astimezone(UTC)


def expected_in(path: Path) -> Sequence[Expected]:
    """
    Return the entries of a file.

    Raises:
        ConfigurationError: It cannot be read, or an entry is wrong; the message names each wrong field of each entry.
        ExtraMissingError: cronsim is missing.
    """
    _cron()
    content = toml_in(path, named_by="--expect and DKIST_CORE_EXPECT", example=_EXAMPLE)
    others = [show(name) for name in content if name != "expect"]
    entries = content.get("expect")
    if others or not isinstance(entries, list) or not entries:
        found = ", ".join(others) or ("no entry" if entries is None else show(entries))
        msg = f"{path}: found {found}, expected entries [[expect]] alone; {_EXAMPLE} is an example"
        raise ConfigurationError(msg)
    found_entries: list[Expected] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            expected = Expected.model_validate(entry)
        except ValidationError as error:
            problems += [f"entry {number}{_named(entry)}, {_complaint(each)}" for each in error.errors()]
            continue
        if expected in found_entries:
            first = found_entries.index(expected) + 1
            problems.append(f"entry {number}{_named(entry)}: found the same as in entry {first}, expected it once")
        found_entries.append(expected)
    if problems:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}")
    return found_entries


def _named(entry: Any) -> str:
    workflow = entry.get("workflow") if isinstance(entry, dict) else None
    return f" ({show(workflow)})" if isinstance(workflow, str) and workflow else ""


def _complaint(problem: Any) -> str:
    """Return what is wrong with one field: `grace: found 5, expected a duration …`."""
    name = ".".join(map(str, problem["loc"])) or "the entry"
    if problem["type"] == "missing":
        return f"{name}: found nothing, expected {_EXPECTATIONS[name]}"
    if problem["type"] == "extra_forbidden":
        return f"{name}: found a field of this name, expected one of {', '.join(_EXPECTATIONS)}"
    return f"{name}: found {show(problem['input'])}, expected {_EXPECTATIONS.get(name, 'fields as workflow = …')}"


def _cron() -> Any:
    """Return the library of schedules, which an extra installs."""
    try:
        import cronsim  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "expected starts are read", str(error.name)) from error
    return cronsim
