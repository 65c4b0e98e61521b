"""
Values as words of a page: durations, sizes and times.

Not here: the elements around them, which are in templates.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from dkist_processing_core.text import size

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - with one digit more
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def utc(moment: datetime) -> str:
    """Return a time in UTC, in seconds."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


FILTERS: dict[str, Callable[..., Any]] = {"duration": duration, "size": size, "utc": utc}
