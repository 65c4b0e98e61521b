"""
The proof that everything that was on the bus at a moment is in the inbox of a consumer.

That nothing arrives proves nothing: a broker, a network or this process may be stopped. Not here: receiving and storing
(intake), and what follows from the proof.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from dkist_processing_core.bus import Receiver

SETTLING_SECONDS = 60.0
"""
How long after a disturbance of a broker the bus may still lack reports.

Publishers look for the broker again within 30 s, and then deliver what has waited.
"""
_PROOF_SECONDS = 1.0
# What the broker has sent before its answer may still be on its way between two threads when a first batch is taken.
_DRAINED = 2


class Moment(NamedTuple):
    """A moment by both clocks of this process, which differ in what suspends or changes them."""

    time: float
    """Seconds since 1970."""
    monotonic: float


OnCaughtUp = Callable[[Moment, float], None]
"""
Called with a moment at which the inbox had everything, and with the last moment at which the bus was disturbed.

The latter is a time of `time.monotonic`, or minus infinity if there was none.
"""


class CaughtUp:
    """
    Asks the bus each second whether messages wait for the consumer, if a proof is wanted.

    A bus with another receiver of its name gives no number. If none waits, the messages that it has sent before its
    answer are those that have arrived. When these are stored, the inbox has everything that was on the bus when it was
    asked. The thread of the intake calls each method.
    """

    def __init__(
        self,
        on_caught_up: OnCaughtUp,
        *,
        is_remote: bool,
        is_wanted: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Store what is called with each proof.

        Args:
            on_caught_up: It is called at most once a second.
            is_remote: Whether the bus is a broker. A file is read up to its end, and need not be asked.
            is_wanted: Whether a proof is wanted now; called before the bus is asked.
            clock: The time, in seconds since 1970.
            monotonic: A clock that nothing sets.
        """
        self._on_caught_up = on_caught_up
        self._is_remote = is_remote
        self._is_wanted = is_wanted
        self._clock = clock
        self._monotonic = monotonic
        self._disturbed_at = -math.inf
        self._connections: int | None = None
        self._asked: Moment | None = None
        self._drained = 0
        self._looked_at = -math.inf

    @property
    def is_near(self) -> bool:
        """Whether the next proof lacks nothing but another look for messages, or two."""
        return self._asked is not None

    def pause(self) -> None:
        """Note that this process does not receive now."""
        self._asked = self._connections = None

    def note_disturbance(self) -> None:
        """Note that the bus cannot be used now."""
        self._disturbed_at, self._asked = self._monotonic(), None

    def note_stored(self, receiver: Receiver, *, is_drained: bool) -> None:
        """
        Note that all received messages are stored.

        Args:
            receiver: The receiver of the new messages.
            is_drained: Whether no further message had arrived when the last ones were taken.
        """
        if not receiver.is_connected or self._connections not in (None, receiver.connections):
            # It may have connected again since the last call.
            self.note_disturbance()
        self._connections = receiver.connections
        if self._asked is not None and is_drained:
            self._drained += 1
            if self._drained >= _DRAINED:
                asked, self._asked = self._asked, None
                self._on_caught_up(asked, self._disturbed_at)
        # A clock that was set back shows a time before the last one.
        is_time = not 0.0 <= self._clock() - self._looked_at < _PROOF_SECONDS
        if self._asked is None and receiver.is_connected and is_time:
            self._ask(receiver)

    def _ask(self, receiver: Receiver) -> None:
        asked = Moment(self._clock(), self._monotonic())
        if not self._is_wanted():
            self._looked_at = asked.time
            return
        waiting = receiver.backlog()
        if waiting is not None and (waiting == 0 or not self._is_remote):
            self._asked, self._drained = asked, 0
            self._looked_at = asked.time
