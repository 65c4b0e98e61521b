"""
Values as words of a page: durations, ages, sizes, times, and texts of events without hidden characters.

Not here: the elements around them, which are templates.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core import text
from dkist_processing_core.dashboard.drawing.labels import fitted
from dkist_processing_core.text.terminal import visible, visible_line

_MINUTE = 60
_UNKNOWN, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def duration(seconds: float | None) -> str:
    """Return a duration as all texts of the package do; an unknown one as a dash."""
    return _UNKNOWN if seconds is None else text.duration(max(0.0, seconds))


def age(seconds: float | None) -> str:
    """Return a duration that grows while it is looked at, in whole seconds."""
    if seconds is None:
        return _UNKNOWN
    if seconds < _MINUTE - 0.5:
        return f"{round(max(0.0, seconds))} s"
    return text.duration(max(_MINUTE, seconds))


def change(seconds: float) -> str:
    """Return by how much a duration has changed, with its sign."""
    if not round(seconds, 1):
        return "no change"
    return f"{'+' if seconds > 0 else _MINUS}{duration(abs(seconds))}"


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{share * 100:.0f} %"


def utc(moment: datetime) -> str:
    """Return a time in UTC, in seconds."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def time_of(seconds: float | None) -> datetime | None:
    """Return a time in seconds since 1970, in UTC; None if it is not known."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def number(value: float) -> str:
    """Return a whole number with spaces between its groups of three digits, which no language takes for a decimal."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def cut(whole: str, length: int) -> str:
    """Return the beginning of a text in at most `length` characters, with a sign that it goes on."""
    return whole if len(whole) <= length else f"{whole[: length - 1]}…"


FILTERS: dict[str, Callable[..., Any]] = {
    "age": age,
    "amount": text.amount,
    "change": change,
    "cut": cut,
    "duration": duration,
    "fitted": fitted,
    "number": number,
    "percent": percent,
    "size": text.size,
    "time_of": time_of,
    "utc": utc,
    "visible": visible_line,
    "visible_text": visible,
}
