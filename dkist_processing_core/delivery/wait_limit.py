"""
For how long one publisher may wait for a journal that other processes keep locked.

Not here: the waiting itself (journal), and how long the processes of an attempt may wait together (budget).
"""

import time

WAIT_LIMIT_SECONDS = 2.0
# The largest share of the first wait, so that some is left for the end of the process.
_SHARE_OF_FIRST_WAIT = 0.5
# A process may run for days: waiting time is regained at this rate, so that waiting is possible again later.
_REGAINED_PER_SECOND = 0.001


class WaitLimit:
    """A limit on the sum of all waits, and how much of it is spent; times are in seconds."""

    def __init__(self, seconds: float) -> None:
        """Start with the whole limit left."""
        self.seconds = seconds
        self.spent = 0.0
        self._counted = time.monotonic()

    @property
    def left(self) -> float:
        """For how many more seconds the publisher may wait; negative after a wait that exceeded the limit."""
        now = time.monotonic()
        self.spent = max(0.0, self.spent - _REGAINED_PER_SECOND * (now - self._counted))
        self._counted = now
        return self.seconds - self.spent

    def spent_after(self, patience: float) -> float:
        """Return how much may be spent after a call that waits at most `patience` seconds, within the limit."""
        left = self.left
        return self.spent + max(0.0, min(patience, left))

    @property
    def left_for_first(self) -> float:
        """For how many seconds a publisher may wait if none of its messages is displaced."""
        return self.seconds * _SHARE_OF_FIRST_WAIT - self.spent

    def spend(self, seconds: float) -> None:
        """Subtract a wait from the limit."""
        self.spent += seconds
