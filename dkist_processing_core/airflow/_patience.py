"""
The account of what all callbacks of one process have waited.

Not here: how long they may wait (budget), and what is waited for.
"""

import contextlib
import os
import time
from collections.abc import Iterator

from dkist_processing_core.budget import CALLBACK_PROCESS as SECONDS

_left: dict[tuple[int, str], float] = {}


@contextlib.contextmanager
def at_most(seconds: float, what: str, *, at_least: float = 0.0) -> Iterator[float]:
    """Give how long may be waited now, between two limits; what is waited is not there later."""
    account = (os.getpid(), what)
    left = _left.setdefault(account, SECONDS[what])
    began = time.monotonic()
    try:
        yield max(at_least, min(seconds, left))
    finally:
        _left[account] = left - (time.monotonic() - began)
