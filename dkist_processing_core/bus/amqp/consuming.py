"""
Receiving messages from queues and streams, as messages of this library, and acknowledging them.

Not here: received messages as a subscription sees them (receiver), and its thread (consumer_thread).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import pika
import pika.channel
import pika.spec

from dkist_processing_core.bus.amqp.deliveries import Delivery, text_of
from dkist_processing_core.bus.amqp.session import RPC_SECONDS, Session
from dkist_processing_core.journal.message import Message, Properties, without_needless_bytes

CLOCK_MARGIN = timedelta(seconds=5)
"""By how much the clocks of this host and of the broker may differ."""
BEGINNING_SECONDS = 1.0
"""How long a stream may deliver nothing before it counts as empty, or as without messages since a given time."""
# The largest prefetch count of AMQP: more than RabbitMQ puts into one chunk of a stream.
_CHUNK_MESSAGES = 65535
# The broker works longer on a message if more of them wait for an acknowledgement: with 2,000 about twice as long.
_UNACKNOWLEDGED = 500


class TaggedMessage(NamedTuple):
    """A message that the broker delivered, and the tag by which this link acknowledges it."""

    tag: int
    message: Message

    @property
    def offset(self) -> int | None:
        """The offset of the message in its stream; None if it does not come from a stream."""
        offset = self.message.properties.headers.get("x-stream-offset")
        return offset if isinstance(offset, int) else None


class Consuming(Session):
    """A session that receives messages."""

    def __init__(self, *values: Any, **named: Any) -> None:
        """Store the arguments of a session. No connection is opened."""
        super().__init__(*values, **named)
        self._received: deque[TaggedMessage] = deque()
        self.keeps_excerpts = False
        """Whether an excerpt is kept of large messages that are no events: many messages may wait to be stored."""

    def consume(self, queue: str, *, prefetch: int, arguments: Mapping[str, Any] | None = None) -> None:
        """
        Subscribe to a queue.

        Args:
            queue: The name of the queue or stream.
            prefetch: How many messages the broker may deliver before one of them is acknowledged.
            arguments: The arguments of the subscription, such as the offset in a stream.
        """
        # The broker gives no reason: the queue was deleted, has moved, or has waited too long for an acknowledgement.
        complaint = f"the broker ended the delivery from {queue} (basic.cancel, which names no reason)"
        self._live_channel.add_on_cancel_callback(lambda _: self._fail_with(complaint))
        self._consume(self._live_channel, queue, prefetch=prefetch, arguments=arguments or {})

    def _consume(
        self, channel: pika.channel.Channel, queue: str, *, prefetch: int, arguments: Mapping[str, Any]
    ) -> None:
        self._live_connection.on_deliveries = self._on_deliveries
        self._call(lambda done: channel.basic_qos(prefetch_count=prefetch, callback=done))
        self._call(
            lambda done: channel.basic_consume(queue, self._on_message, arguments=dict(arguments), callback=done)
        )

    def receive(self, timeout: float) -> TaggedMessage | None:
        """Return the next message; None if none arrives within `timeout` seconds or before a `wake`."""
        self._wait(lambda: bool(self._received), timeout)
        return self._received.popleft() if self._received else None

    def receive_all(self, timeout: float) -> list[TaggedMessage]:
        """Return all messages that have arrived; wait for one as `receive` does."""
        self._wait(lambda: bool(self._received), timeout)
        received, self._received = self._received, deque()
        return list(received)

    def read_stream(
        self, queue: str, offset: object, timeout: float, *, count: int = _CHUNK_MESSAGES, until: int = 0
    ) -> list[TaggedMessage]:
        """
        Return messages of a stream, which the caller must not acknowledge.

        Args:
            queue: The name of the stream.
            offset: Where to begin: an offset, a time, or `last` for the last chunk of the stream.
            timeout: How many seconds to wait for the messages; the result is incomplete after that.
            count: How many messages to request; the broker completes a chunk, so it may send more. By default more than
                a chunk has.
            until: Wait for a message with this offset or a later one.
        """
        # A separate channel: pika rejects messages that still arrive for a cancelled consumer, which a stream forbids.
        channel = self._new_channel(RPC_SECONDS)
        prefetch = min(count, _UNACKNOWLEDGED) if until else count
        self._consume(channel, queue, prefetch=prefetch, arguments={"x-stream-offset": offset})
        acknowledged = 0

        def is_complete() -> bool:
            nonlocal acknowledged
            received = self._received
            if not received or (received[-1].offset or 0) >= until:
                return bool(received)
            # Each acknowledgement requests as many further messages, `count` messages in all.
            due = min(len(received), count - prefetch)
            if due - acknowledged >= prefetch // 2 or acknowledged < due == count - prefetch:
                with self._explained():
                    channel.basic_ack(received[due - 1].tag, multiple=True)
                acknowledged = due
            return False

        self._run(is_complete, timeout)
        # The broker sends all messages of the last chunk before it answers another request.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))
        channel.close()
        delivered, self._received = self._received, deque()
        return list(delivered)

    def acknowledge(self, tag: int, *, with_earlier: bool = False) -> None:
        """Acknowledge one message, or with all that were delivered before it."""
        with self._explained():
            self._live_channel.basic_ack(tag, multiple=with_earlier)

    def synchronize(self) -> None:
        """Wait until the broker has processed all previous requests: a channel answers requests in order."""
        channel = self._live_channel
        # A request without effect: an existing consumer keeps the prefetch that it started with.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))

    def _on_deliveries(self, delivered: Iterable[Delivery]) -> None:
        self._received.extend(TaggedMessage(each.tag, self._kept(each.message)) for each in delivered)
        self._stop_loop()

    def _on_message(
        self, _: object, method: pika.spec.Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        # A message that pika has decoded.
        self._received.append(TaggedMessage(method.delivery_tag, self._kept(message_of(method, properties, body))))
        self._stop_loop()

    def _kept(self, message: Message) -> Message:
        return without_needless_bytes(message) if self.keeps_excerpts else message


def message_of(method: pika.spec.Basic.Deliver, properties: pika.BasicProperties, body: bytes) -> Message:
    """Return a message that pika has decoded; any publisher may have set its properties."""
    found = Properties(
        message_id=text_of(properties.message_id or ""),
        content_type=text_of(properties.content_type or ""),
        type=None if properties.type is None else text_of(properties.type),
        timestamp=properties.timestamp,
        correlation_id=None if properties.correlation_id is None else text_of(properties.correlation_id),
        headers={text_of(name): value for name, value in (properties.headers or {}).items()},
    )
    return Message.received(text_of(method.exchange), text_of(method.routing_key), body, found)
