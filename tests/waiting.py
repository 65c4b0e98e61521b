"""
Waiting in tests: for what something does in its own time, with a deadline.
"""

import threading
import time
from collections.abc import Callable

SECONDS = 40.0


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS, *, every: float = 0.02) -> None:
    """
    Return when something holds, which must be within so many seconds; it is looked at again and again.
    """
    deadline = time.monotonic() + seconds
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        turn.wait(every)
