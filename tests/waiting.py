"""
Functions that wait in tests for a condition, with a deadline.
"""

import threading
import time
from collections.abc import Callable

SECONDS = 200.0


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS, *, every: float = 0.02) -> None:
    """
    Return when the condition holds, and fail if it does not within `seconds`. It is checked every `every` seconds.
    """
    deadline = time.monotonic() + seconds
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        turn.wait(every)
