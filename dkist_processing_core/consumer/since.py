"""
The moment from which past events are read, in the forms that a program and a person give it.

Not here: reading them (replay), and the events' own times (events).
"""

import re
from datetime import UTC, datetime, timedelta

_DURATION = re.compile(r"(\d{1,9})\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# There are no older events. RabbitMQ has no times before 1970, and clocks differ.
_FIRST, _LAST = datetime.fromtimestamp(3600, UTC), datetime.max.replace(tzinfo=UTC)
EXPECTED = (
    "expected a number followed by s, m, h or d, for example 30m, 2h or 7d; or today; or a time such as "
    "2026-11-22T09:00; or first, for the oldest event"
)


def moment_of(since: str | timedelta | datetime) -> datetime | None:
    """
    Return the moment that a value of `since` means, in UTC; None for the oldest event that the bus still has.

    Args:
        since: `30m`, `2h` or `7d`: so long ago. `today`: the last midnight in local time. A date, or a date and a time,
            by ISO 8601; without a zone it is local. `first`: the oldest event. Or a `timedelta` or a `datetime`.

    Raises:
        ValueError: The value is none of these.

    >>> moment_of("2026-11-22T09:00Z"), moment_of("first")
    (datetime.datetime(2026, 11, 22, 9, 0, tzinfo=datetime.timezone.utc), None)
    """
    if isinstance(since, datetime):
        return in_utc(since)
    if isinstance(since, timedelta):
        return _ago(since)
    text = since.strip().lower() if isinstance(since, str) else ""
    if text == "first":
        return None
    if text == "today":
        # Without a zone: the clock may have been changed since midnight.
        return in_utc(datetime.now().replace(hour=0, minute=0, second=0, microsecond=0))  # noqa: DTZ005
    if (duration := duration_of(text)) is not None:
        return _ago(duration)
    try:
        return in_utc(datetime.fromisoformat(text.upper()))
    except ValueError:
        msg = f"found {since!r}, {EXPECTED}"
        raise ValueError(msg) from None


def duration_of(text: str) -> timedelta | None:
    """
    Return the duration that a text such as `90s`, `30m`, `2h` or `7d` means; None for another text.

    >>> duration_of("2h")
    datetime.timedelta(seconds=7200)
    """
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def in_utc(moment: datetime) -> datetime | None:
    """Return a time in UTC, None if it is before any event; a time without a zone is a local time."""
    try:
        # `astimezone` is not used: in the hour that a change of clocks skips, its result depends on Python's release.
        found = datetime.fromtimestamp(moment.timestamp(), UTC)
    except (OverflowError, ValueError):
        # In UTC the time is outside the calendar.
        found = _LAST if moment.year > _FIRST.year else _FIRST
    return found if found > _FIRST else None


def _ago(duration: timedelta) -> datetime | None:
    try:
        return in_utc(datetime.now(UTC) - duration)
    except OverflowError:
        return None
