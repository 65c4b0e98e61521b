"""
A flag that one thread waits for and others raise, safe against interrupts by signal handlers.

A signal handler may raise between any two lines of the main thread, and the methods of `threading.Event` have several
lines: an event that is interrupted while it is set never releases its lock, and its waiters hang. Here each step is one
call to C.
"""

import math
import queue
import time
from contextlib import suppress


class SignalSafeFlag:
    """A flag that is raised or lowered; only one thread at a time may call `wait`."""

    def __init__(self) -> None:
        """Create a lowered flag."""
        self._is_raised = False
        self._due = math.inf
        self._raisings: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def is_raised(self) -> bool:
        """Whether the flag is raised."""
        return self._is_raised or time.monotonic() >= self._due

    def raise_at(self, moment: float) -> None:
        """Raise the flag at a time of `time.monotonic`."""
        self._due = moment

    def raise_(self) -> None:
        """Raise the flag, and wake all current and future waiters."""
        self._is_raised = True
        self._raisings.put(None)

    def lower(self) -> None:
        """Lower the flag, so that future waiters wait again."""
        self._is_raised = False
        with suppress(queue.Empty):
            while True:
                self._raisings.get_nowait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the flag is raised, for at most `seconds`, and return True if it is."""
        if not self.is_raised:
            until_due = self._due - time.monotonic()
            seconds = until_due if seconds is None else min(seconds, until_due)
            with suppress(queue.Empty):
                self._raisings.get(timeout=None if seconds == math.inf else max(0.0, seconds))
        return self.is_raised
