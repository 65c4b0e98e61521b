"""
The stream of all events as a source of messages, for subscriptions without a name.

Not here: the connection (consumer_thread), and the events that a named subscription has lost (lost_events).
"""

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dkist_processing_core.bus.amqp.consuming import BEGINNING_SECONDS, CLOCK_MARGIN
from dkist_processing_core.bus.interface import Offset
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.journal.message import topic_matches

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

ARCHIVE_PREFETCH = 100
# How long a replay that has not reached its end waits for a broker that is silent or unreachable.
_SILENCE_SECONDS = 30.0
logger = logging.getLogger(__name__)


class Archive:
    """The stream of all events; its offsets are the positions to continue from after an interruption."""

    name = None
    missed = 0

    def __init__(
        self, bus: "AmqpBus", patterns: Iterable[str], *, replay: bool | datetime | Offset, prefetch: int
    ) -> None:
        """Store the bus, the patterns and the start: the end or the beginning of the stream, a time or an offset."""
        self._bus = bus
        self._patterns = tuple(patterns)
        self._prefetch = prefetch
        self._is_replaying = bool(replay)
        # In whole seconds, as the timestamps of messages are.
        self._begins_at = int(replay.timestamp()) if isinstance(replay, datetime) else 0
        self._may_hold_nothing = False
        # The offset of the message that was read last, and of the last message of the replay.
        self._read = self._end = -1
        self._received_at = 0.0
        self._start: Any = "first" if replay else "next"
        # If no message arrived before an interruption, reading continues from a time instead of an offset.
        self._restart: Any = "first" if replay else datetime.now(UTC) - CLOCK_MARGIN
        if isinstance(replay, datetime):
            self._start = self._restart = replay - CLOCK_MARGIN
        if isinstance(replay, Offset):
            self._start = self._restart = replay.number
            self._read = replay.number - 1

    def attach(self, link: "AmqpLink") -> None:
        """Subscribe to the messages after the last one that was read."""
        self._bus.ensure(link, "queue", ARCHIVE_QUEUE)
        if self._is_replaying:
            self._look_ahead(link.last_of_stream(ARCHIVE_QUEUE, BEGINNING_SECONDS))
        self._received_at = time.monotonic()
        link.consume(ARCHIVE_QUEUE, prefetch=self._prefetch, arguments={"x-stream-offset": self._start})
        self._start = self._restart

    def _look_ahead(self, last: "TaggedMessage | None") -> None:
        offset = -1 if last is None or last.offset is None else last.offset
        self._is_replaying = offset > self._read
        if last is not None and self._is_replaying:
            self._end = offset
            # If there is no message after the requested time, the broker delivers nothing and does not report it.
            self._may_hold_nothing = (last.message.properties.timestamp or 0) < self._begins_at

    def receive(self, link: "AmqpLink", received: "TaggedMessage") -> None:
        """Do nothing: a stream drops messages only at its limits of age and size."""

    def close(self) -> None:
        """Do nothing: a subscription without a name has no position to store."""

    def acknowledge(self, link: "AmqpLink", received: "TaggedMessage", *, with_earlier: bool = False) -> None:
        """Acknowledge a message, or with all that this link received before it."""
        link.acknowledge(received.tag, with_earlier=with_earlier)

    def takes(self, received: "TaggedMessage") -> bool:
        """Return True if a message matches the patterns: no binding selects the messages of a stream."""
        return any(topic_matches(pattern, received.message.routing_key) for pattern in self._patterns)

    def is_new(self, received: "TaggedMessage") -> bool:
        """Return True if a message is newer than all messages that the stream held at the start."""
        return received.offset is None or received.offset > self._end

    def record_read(self, received: "TaggedMessage") -> None:
        """Record how far the stream was read, after a message was passed to the receiver."""
        self._received_at = time.monotonic()
        if received.offset is not None:
            self._read = received.offset
            self._start = self._restart = received.offset + 1
            self._may_hold_nothing = False
            self._is_replaying = self._is_replaying and received.offset < self._end

    def backlog(self, _: "AmqpLink") -> int | None:
        """Return None: a stream counts no messages."""
        return None

    def has_caught_up(self, requested_since: float) -> bool:
        """Return True if the replay is complete, or was ended because the broker is silent."""
        # While a consumer works on an event, it requests and receives nothing.
        silent_for = time.monotonic() - max(self._received_at, requested_since)
        if self._is_replaying and self._may_hold_nothing and silent_for > BEGINNING_SECONDS:
            self._is_replaying = False
        elif self._is_replaying and silent_for > _SILENCE_SECONDS:
            logger.warning("the broker is silent for %g s: the rest of the replay is not read", silent_for)
            self._is_replaying = False
        return not self._is_replaying

    def dead_letter(self, link: "AmqpLink", received: "TaggedMessage", _: str) -> None:
        """Acknowledge a message only: a subscription without a name has no dead letters."""
        link.acknowledge(received.tag)
