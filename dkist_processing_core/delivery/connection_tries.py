"""
The tries to connect and deliver: the timeout of the next one, and the pause after failures in a row.

Not here: connecting and delivering (drainer).
"""

from dkist_processing_core import budget
from dkist_processing_core.errors import BusUnreachableError, ConnectionFailedHereError
from dkist_processing_core.process.own_random import own_random

_CONNECT_SECONDS = 5.0
_SHORTEST_CONNECT_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_HELD_UP_SECONDS = 1.0


class BusStalledError(BusUnreachableError):
    """The broker keeps the connection open, but has not answered for a long time."""


def is_elsewhere(error: Exception) -> bool:
    """Return True if no process of this host could reach the broker now, because of the network or the broker."""
    return isinstance(error, BusUnreachableError) and not isinstance(error, ConnectionFailedHereError)


class ConnectionTries:
    """The failed tries of one drainer since its last success."""

    def __init__(self, flush_timeout: float) -> None:
        """Start without a failure; `flush_timeout` is how long a process waits for the bus at its end, in seconds."""
        self._flush_timeout = flush_timeout
        self._failures = 0

    @property
    def patience(self) -> float:
        """How many seconds to wait for a connection: at the first try, less than a process waits at its end."""
        if self._failures:
            return _CONNECT_SECONDS
        share = self._flush_timeout * budget.FIRST_CONNECTION
        return min(_CONNECT_SECONDS, max(_SHORTEST_CONNECT_SECONDS, share))

    def may_repeat(self, error: Exception, *, was_connected: bool, seconds: float) -> bool:
        """
        Return True if the next try may succeed at once, although one of `seconds` seconds has failed with `error`.

        Then the error counts as a failure: only the first failure in a row is repeated at once.
        """
        # A process that was stopped during the try (SIGSTOP, a suspended machine) has missed the broker's answer.
        was_held_up = not was_connected and seconds > self.patience + _HELD_UP_SECONDS
        was_working = was_connected and not isinstance(error, BusStalledError)
        if self._failures or not (was_working or was_held_up or isinstance(error, ConnectionFailedHereError)):
            return False
        self._failures = 1
        return True

    def succeed(self) -> None:
        """Reset the number of failures."""
        self._failures = 0

    def pause(self) -> float:
        """Count a failure, and return how many seconds to pause after it: longer each time, with jitter."""
        self._failures += 1
        longest = min(_LONGEST_PAUSE_SECONDS, 2.0 ** (self._failures - 1))
        return longest * own_random.uniform(0.5, 1.0)
