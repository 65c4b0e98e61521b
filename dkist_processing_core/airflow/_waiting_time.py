"""
The account of the time that all callbacks of one process have waited.

Not here: the limits (budget), and the waits themselves.
"""

import contextlib
import os
import time
from collections.abc import Iterator

from dkist_processing_core.budget import CALLBACK_PROCESS as SECONDS

_left: dict[tuple[int, str], float] = {}


@contextlib.contextmanager
def at_most(seconds: float, what: str, *, at_least: float = 0.0) -> Iterator[float]:
    """Yield the seconds that may be waited now, between two limits; the time spent is charged to the account."""
    account = (os.getpid(), what)
    left = _left.setdefault(account, SECONDS[what])
    began = time.monotonic()
    try:
        yield max(at_least, min(seconds, left))
    finally:
        _left[account] = left - (time.monotonic() - began)
