"""
A flag that one thread waits for and others raise, whatever interrupts them.

A signal's handler may raise between any two lines of the main thread, and `threading.Event` is made of several: one
that is interrupted as it is set keeps its lock for ever, and whoever waits for it hangs. Here each step is one call
to C.
"""

import math
import queue
import time
from contextlib import suppress


class Flag:
    """Raised or not; `wait` is for one thread at a time."""

    def __init__(self) -> None:
        """Begin lowered."""
        self._is_raised = False
        self._due = math.inf
        self._raisings: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def is_raised(self) -> bool:
        """Whether it is raised."""
        return self._is_raised or time.monotonic() >= self._due

    def raise_at(self, moment: float) -> None:
        """Be raised from a time of `time.monotonic` on."""
        self._due = moment

    def raise_(self) -> None:
        """Have whoever waits go on, and whoever comes to wait as well."""
        self._is_raised = True
        self._raisings.put(None)

    def lower(self) -> None:
        """Have whoever comes to wait do so."""
        self._is_raised = False
        with suppress(queue.Empty):
            while True:
                self._raisings.get_nowait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is raised, for at most so many seconds, and say whether it is."""
        if not self.is_raised:
            until_due = self._due - time.monotonic()
            seconds = until_due if seconds is None else min(seconds, until_due)
            with suppress(queue.Empty):
                self._raisings.get(timeout=None if seconds == math.inf else max(0.0, seconds))
        return self.is_raised
