"""
How long all callbacks of one process may wait for what does not answer.

The engine hands the ends of all runs of a file to one process, one after the other, and kills it when they take too
long together: what was not told by then is lost. Not here: what is waited for.
"""

import contextlib
import os
import time
from collections.abc import Iterator

SECONDS = 8.0
_left: dict[int, float] = {}


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[float]:
    """Give how long may be waited now, at most so many seconds; what is waited in vain is not there later."""
    process = os.getpid()
    left = _left.setdefault(process, SECONDS)
    given = max(0.0, min(seconds, left))
    began = time.monotonic()
    try:
        yield given
    finally:
        waited = time.monotonic() - began
        if waited >= given:
            _left[process] = left - waited
