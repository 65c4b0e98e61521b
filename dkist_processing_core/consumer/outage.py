"""
The log of an outage of a database or of the bus: one line at its start and one at its end, and the pauses in between.

Not here: what waits meanwhile (intake, worker, timers).
"""

import logging
import math
import threading
import time

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0
logger = logging.getLogger("dkist_processing_core.consumer")


class Outage:
    """The state of one thing that several threads need."""

    def __init__(self, what: str) -> None:
        """Store what it is called in the log."""
        self._what = what
        self._lock = threading.Lock()
        self._pause = 0.0
        self._began = -math.inf
        self._used: dict[int, float] = {}

    @property
    def is_going_on(self) -> bool:
        """Whether the last use has failed."""
        return self._pause > 0.0

    def begin(self, error: Exception) -> float:
        """Log the first error of an outage, and return how many seconds to wait before the next try."""
        thread, now = threading.get_ident(), time.monotonic()
        with self._lock:
            if not self._pause:
                if self._used.get(thread, -math.inf) < self._began:
                    # The thread still has a connection of before the last outage, which has ended for another thread.
                    self._used[thread] = now
                    return _FIRST_PAUSE_SECONDS
                self._began = now
                logger.warning("%s; the consumer tries again, and no event is lost", error)
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            return self._pause

    def end(self) -> None:
        """Record a success of this thread, and log the end of an outage, if there is one."""
        self._used[threading.get_ident()] = time.monotonic()
        if self._pause:
            with self._lock:
                if self._pause:
                    self._pause = 0.0
                    logger.info("%s can be used again; the consumer continues", self._what)
