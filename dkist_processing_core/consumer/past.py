"""
The past events that a consumer takes in at its start, without those that it may have handled and no longer knows.

Not here: storing them, and the events after them (intake).
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

from dkist_processing_core.bus import Bus, ReceivedMessage, Receiver
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.inbox import Inbox
from dkist_processing_core.text import counted

# A broker begins a few seconds before a time, and clocks differ.
_MARGIN = timedelta(seconds=10)
_WAIT_SECONDS = 0.1
logger = logging.getLogger("dkist_processing_core.consumer")


class Past:
    """
    A reading of past events.

    The bus may have events for longer than the inbox has the keys of handled ones. What reached the bus before the
    time until which keys were deleted is passed over, since it may have been handled. The own time of an event does not
    matter: one that an outbox delivers late reaches the bus late. A consumer that has deleted no key passes over none.
    """

    def __init__(self, receiver: Receiver, name: str, first: float, until: datetime | None) -> None:
        """Store a receiver, the consumer's name, and the position and the time of the first event to take in."""
        self.receiver = receiver
        self._name = name
        self._first = first
        self._until = until
        self._passed_over = 0

    @classmethod
    def open(
        cls,
        bus: Bus,
        inbox: Inbox,
        patterns: Sequence[str],
        *,
        since: datetime | bool,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> Self:
        """
        Begin to read the events from a time on; True for all. If the consumer is ending, all are passed over.

        Raises:
            BusError, InboxUnavailableError: They cannot be read now.
        """
        pruned_until, first, until = inbox.position().pruned_until, -math.inf, None
        if pruned_until is not None:
            until = datetime.fromtimestamp(pruned_until, UTC) + _MARGIN
            if not isinstance(since, datetime) or since < until:
                first = _first_position(bus, patterns, until, is_ending)
        receiver = bus.subscribe(patterns, replay=since, in_batches=True)
        return cls(receiver, inbox.rules.name, first, until)

    def unhandled(self, batch: Sequence[ReceivedMessage]) -> Sequence[ReceivedMessage]:
        """Return the messages of a batch that are not passed over."""
        found = [each for each in batch if each.is_new or each.position is None or each.position >= self._first]
        self._passed_over += len(batch) - len(found)
        return found

    def end(self) -> None:
        """End the reading, and log how many events were passed over."""
        self.receiver.close()
        if self._passed_over and self._until is not None:
            logger.warning(
                "the consumer %r has passed over %s that reached the bus before %s: it may have handled them, "
                "and has deleted their keys",
                self._name,
                counted(self._passed_over, "past event"),
                self._until.isoformat(timespec="seconds"),
            )


def _first_position(bus: Bus, patterns: Sequence[str], moment: datetime, is_ending: Callable[[], bool]) -> float:
    """Return the position of the first past event since a time; infinity without one, or at the consumer's end."""
    asked = time.monotonic()
    with bus.subscribe(patterns, replay=moment, in_batches=True) as receiver:
        while True:
            for received in receive_connected(receiver, 1, bus.where):
                return math.inf if received.position is None else received.position
            if receiver.has_caught_up(asked) or is_ending():
                return math.inf


def receive_connected(receiver: Receiver, most: int, where: str) -> Sequence[ReceivedMessage]:
    """
    Return the past messages that have arrived within a moment, at most `most`.

    Raises:
        BusUnreachableError: None has, and the connection is lost. The caller need not wait for another one.
    """
    batch = receiver.receive_batch(most, _WAIT_SECONDS)
    if not batch and not receiver.is_connected:
        msg = f"{where}: the connection was lost while past events were read"
        raise BusUnreachableError(msg)
    return batch
