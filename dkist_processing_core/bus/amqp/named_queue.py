"""
The queue of a named subscription as a source of messages, with its dead letters, and with a count of lost messages.

Not here: how the messages that the queue has dropped are counted (lost_events), and the connection (consumer_thread).
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dkist_processing_core.bus.amqp.lost_events import LostEvents
from dkist_processing_core.bus.interface import MOST_AHEAD
from dkist_processing_core.bus.topology import DEAD_LETTER_EXCHANGE, consumer_topology
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.text import clip

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

# A small number for a classic queue: a message that waits long behind others counts as not acknowledged in time
# (`consumer_timeout`). 1 for a quorum queue: it counts each return of a message, even of one that the consumer never
# received, and drops the message at a limit.
QUEUE_PREFETCH = {"classic": 20, "quorum": 1}
_CONFIRM_SECONDS = 10.0
_TURN_SECONDS, _TURN_PAUSE_SECONDS = 2.0, 0.02
_MAX_REASON_BYTES = 16 * 1024
_MAX_HEADER_BYTES = 64 * 1024


class NamedQueue:
    """A durable queue, which keeps messages until they are acknowledged, read in batches."""

    missed = 0

    def __init__(self, bus: "AmqpBus", name: str, patterns: Iterable[str], *, former: Iterable[str] = ()) -> None:
        """
        Store the bus, the name of the queue, and the patterns of its bindings. No queue is declared.

        Bindings of the `former` patterns are removed.
        """
        self.name = name
        self._bus = bus
        self._topology = consumer_topology(bus.settings, name, patterns)
        bindings = consumer_topology(bus.settings, name, former).bindings
        self._former = [binding for binding in bindings if binding not in self._topology.bindings]
        self._prefetch = MOST_AHEAD

    def attach(self, link: "AmqpLink") -> None:
        """Create the queue if it is missing, and subscribe to it."""
        self._bus.ensure(link, "exchange", self._bus.event_exchange)
        if not link.declare(self._topology):
            link.bind(self._topology)
            link.unbind(self._former)
        self._wait_for_turn(link)
        link.consume(self.name, prefetch=self._prefetch)

    def _wait_for_turn(self, link: "AmqpLink") -> None:
        """
        Wait until the queue has no reader: the broker has then put back what a previous one had received.

        Otherwise this consumer would receive later messages before those.

        Raises:
            BusUnreachableError: It still has one.
        """
        until = time.monotonic() + _TURN_SECONDS
        while (load := link.queue_load(self.name)) is not None and load.consumers:
            if time.monotonic() > until:
                msg = f"{link.where}: the queue {self.name} has another reader, and one at a time may read it"
                raise BusUnreachableError(msg)
            time.sleep(_TURN_PAUSE_SECONDS)

    def receive(self, link: "AmqpLink", received: "TaggedMessage") -> None:
        """Do nothing: the consumer itself compares its records with the archive."""

    def acknowledge(self, link: "AmqpLink", received: "TaggedMessage", *, with_earlier: bool = False) -> None:
        """Acknowledge a message, or with all that this link received before it."""
        link.acknowledge(received.tag, with_earlier=with_earlier)

    def close(self) -> None:
        """Do nothing: the queue stores its read position."""

    def takes(self, _: "TaggedMessage") -> bool:
        """Return True: the bindings of the queue have already selected its messages."""
        return True

    def is_new(self, _: "TaggedMessage") -> bool:
        """Return True: a queue replays no earlier messages."""
        return True

    def record_read(self, received: "TaggedMessage") -> None:
        """Do nothing: the queue records which messages were read."""

    def backlog(self, link: "AmqpLink") -> int | None:
        """
        Return how many messages are ready in the queue; None if that is not known, or if another reader has some.

        Two readers that wait for their turn at the same time may both find the queue free.
        """
        load = link.queue_load(self.name)
        return None if load is None or load.consumers > 1 else load.messages

    def has_caught_up(self, _: float) -> bool:
        """Return True: a queue replays no earlier messages."""
        return True

    def dead_letter(self, link: "AmqpLink", received: "TaggedMessage", reason: str) -> None:
        """Publish a message to the dead letters, and acknowledge it only after the broker has confirmed that."""
        original = received.message
        reason = clip(reason, lambda text: len(text.encode()) <= _MAX_REASON_BYTES)
        headers = {
            "x-dead-reason": reason,
            "x-dead-time": int(time.time()),
            "x-dead-exchange": original.exchange,
            "x-dead-routing-key": original.routing_key,
        }
        if original.full_size is not None:
            headers["x-dead-size"] = original.full_size
        properties = Properties(
            message_id=original.properties.message_id,
            content_type=original.properties.content_type,
            type=original.properties.type,
            timestamp=original.properties.timestamp,
            correlation_id=original.properties.correlation_id,
            headers={**_carried(original.properties.headers), **headers},
        )
        link.publish(Message(DEAD_LETTER_EXCHANGE, self.name, original.body, properties), _CONFIRM_SECONDS)
        self.acknowledge(link, received)


class CountedQueue(NamedQueue):
    """A queue whose messages are read one by one; events that it has dropped are counted."""

    def __init__(self, bus: "AmqpBus", name: str, patterns: Iterable[str]) -> None:
        """Store the bus, the name of the queue, and the patterns of its bindings. No queue is declared."""
        super().__init__(bus, name, patterns := tuple(patterns))
        limit = self._topology.queues[0].arguments["x-max-length"]
        self._prefetch = QUEUE_PREFETCH[bus.settings.isb_queue_type]
        self._losses = LostEvents(bus, name, patterns, limit=limit, prefetch=self._prefetch)

    @property
    def missed(self) -> int:  # type: ignore[override] # it is only read
        """Number of events that the queue is known to have dropped before they were read."""
        return self._losses.missed

    def attach(self, link: "AmqpLink") -> None:
        """Count the events lost before, then create the queue if it is missing, and subscribe to it."""
        # The comparison reads the archive, which is created here if it is missing.
        self._bus.ensure(link, "exchange", self._bus.event_exchange)
        self._losses.attach(link, is_there=link.exists("queue", self.name))
        super().attach(link)

    def _wait_for_turn(self, link: "AmqpLink") -> None:
        """Do nothing: subscriptions of one name share its messages."""

    def receive(self, link: "AmqpLink", received: "TaggedMessage") -> None:
        """Check for events that were lost before a message."""
        self._losses.receive(link, received)

    def acknowledge(self, link: "AmqpLink", received: "TaggedMessage", *, with_earlier: bool = False) -> None:
        """Acknowledge a message, or with all that this link received before it."""
        super().acknowledge(link, received, with_earlier=with_earlier)
        self._losses.settle(received)

    def close(self) -> None:
        """Store the read position in the queue."""
        self._losses.flush()


def _carried(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the original headers for a dead letter; only their size if they leave no room for ours in a frame."""
    size = len(json.dumps(dict(headers), default=str))
    return dict(headers) if size <= _MAX_HEADER_BYTES else {"x-dead-headers": f"left out: {size} characters"}
