"""
The duration after which an attempt counts as overdue for its author: what is a limit.

Not here: the observers that compare it with the reports.
"""

from typing import Any, TypeGuard

_MOST_SECONDS = 1e9


def is_limit(value: Any) -> TypeGuard[float]:
    """Return True for a usable number of seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MOST_SECONDS
