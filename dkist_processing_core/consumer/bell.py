"""
A bell by which one thread wakes those that wait for work.

Not here: the work (intake, worker).
"""

import threading


class Bell:
    """Counts its rings, so that no ring between a look for work and the wait for it is missed."""

    def __init__(self) -> None:
        """Create a bell that was not rung."""
        self._rung = threading.Condition()
        self.count = 0

    def ring(self) -> None:
        """Wake all threads that wait."""
        with self._rung:
            self.count += 1
            self._rung.notify_all()

    def wait(self, count: int, seconds: float) -> None:
        """Wait until the bell was rung more often than `count` times, for at most `seconds` seconds."""
        with self._rung:
            self._rung.wait_for(lambda: self.count != count, max(0.0, seconds))
