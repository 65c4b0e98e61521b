"""
The quiet hours of a route.

Not here: what is held in them (grouping).
"""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo


def is_within(now: float, begin: time, end: time, timezone: str) -> bool:
    """
    Return True if a time is within daily hours, which may include midnight.

    >>> [is_within(hour * 3600, time(22), time(7), "UTC") for hour in (21, 22, 0, 6, 7)]
    [False, True, True, True, False]
    """
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(timezone)).time()
    return begin <= local < end if begin <= end else local >= begin or local < end
