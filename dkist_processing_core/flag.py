"""
A flag that one thread waits for and others raise, whatever interrupts them.

A signal's handler may raise between any two lines of the main thread, and `threading.Event` is made of several: one
that is interrupted as it is set keeps its lock for ever, and whoever waits for it hangs. Here each step is one call
to C.
"""

import queue
from contextlib import suppress


class Flag:
    """Raised or not; `wait` is for one thread at a time."""

    def __init__(self) -> None:
        """Begin lowered."""
        self.is_raised = False
        self._raisings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def raise_(self) -> None:
        """Have whoever waits go on, and whoever comes to wait as well."""
        self.is_raised = True
        self._raisings.put(None)

    def lower(self) -> None:
        """Have whoever comes to wait do so."""
        self.is_raised = False
        with suppress(queue.Empty):
            while True:
                self._raisings.get_nowait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is raised, for at most so many seconds, and say whether it is."""
        if not self.is_raised:
            with suppress(queue.Empty):
                self._raisings.get(timeout=None if seconds is None else max(0.0, seconds))
        return self.is_raised
