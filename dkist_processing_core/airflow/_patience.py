"""
How long all callbacks of one process may wait, by what they wait for.

The engine hands the ends of all runs of a file to one process, one after the other, and kills it when they take too
long together: what was not told by then is lost. Not here: what is waited for.
"""

import contextlib
import os
import time
from collections.abc import Iterator

BUS, LOOK, COLLECTOR = "bus", "look", "collector"
# Together below 50 s, which is what the engine allows unless it is told otherwise.
SECONDS = {BUS: 20.0, LOOK: 10.0, COLLECTOR: 8.0}
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
