"""
The times in addresses: a time of the past by ISO 8601, or a duration before the present.

Not here: the addresses (links).
"""

import re
from datetime import UTC, datetime, timedelta

from dkist_processing_core.dashboard.asked import PageError

_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment_in(name: str, text: str | None, now: datetime) -> datetime | None:
    """
    Return the time that a parameter means; None without one.

    Args:
        name: The name of the parameter.
        text: `90m`, `24h` or `7d` before `now`; or a time by ISO 8601, without a zone in UTC.
        now: The present.

    Raises:
        PageError: It is neither.
    """
    if not text:
        return None
    try:
        if found := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        msg = f"found {name}={text!r}, expected 90m, 24h, 7d, or a time by ISO 8601, as 2026-11-29T12:00:00Z"
        raise PageError(msg) from None
