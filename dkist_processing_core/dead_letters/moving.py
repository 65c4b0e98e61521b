"""
Moving messages between queues: removed from one only after the broker has confirmed them in the other.

Not here: which messages are moved (in_queue).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dkist_processing_core.errors import BusRefusedError, BusUnreachableError
from dkist_processing_core.journal.message import Message, Properties

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

_CONFIRM_SECONDS = 10.0
# The exchange that routes a message to the queue whose name is the routing key.
_TO_QUEUE = ""
_RETURNS, _DELIVERIES = "x-delivery-count", "x-acquired-count"
_MANY_RETURNS = 10


class Moving:
    """The messages that a link has received from one queue and sends to another, or removes."""

    def __init__(self, link: "AmqpLink", source: str) -> None:
        """Store the link, and the name of the queue that it receives from."""
        self.count = 0
        """How many messages were moved or removed."""
        self._link = link
        self._source = source
        self._refusal: str | None = None
        self._renewed: set[int] = set()

    def move(self, received: "TaggedMessage", message: Message, target: str | None) -> None:
        """
        Send a message on, and acknowledge those that the broker has confirmed; after a refusal, nothing more is sent.

        Args:
            received: The message as it was received.
            message: The message as it is sent.
            target: The name of the queue; None removes the message.
        """
        if target is None:
            self._acknowledge(received.tag)
            return
        while not self._link.has_room and self._refusal is None:
            self._settle()
        if self._refusal is None:
            self._link.send(received.tag, Message(_TO_QUEUE, target, message.body, message.properties))

    def leave(self, received: "TaggedMessage") -> None:
        """
        Leave a message in its queue.

        A quorum queue counts each return of a message, and RabbitMQ 4 drops it at a limit, by default of 20. So
        a message that has returned often is sent to the end of its queue, where it counts as new.
        """
        headers = received.message.properties.headers
        returns = headers.get(_RETURNS)
        if isinstance(returns, int) and returns >= _MANY_RETURNS:
            self._renewed.add(received.tag)
            self.move(received, with_headers(received.message, without_returns(headers)), self._source)

    def end(self) -> None:
        """
        Wait for the answers to all messages. Those that are not acknowledged return when the link is closed.

        Raises:
            BusRefusedError: The broker has refused a message, for example since there is no such queue.
            BusUnreachableError: It does not answer.
        """
        while self._link.unsettled or self._link.has_news:
            self._settle()
        self._link.synchronize()
        if self._refusal is not None:
            msg = f"{self._link.where}: {self._refusal}; changed before that: {self.count}"
            raise BusRefusedError(msg)

    def _settle(self) -> None:
        settled = self._link.settle(_CONFIRM_SECONDS)
        if not settled.confirmed and not settled.refused:
            msg = f"{self._link.where} confirms no message; it has confirmed {self.count}"
            raise BusUnreachableError(msg)
        for tag in settled.confirmed:
            self._acknowledge(tag)
        if settled.refused:
            self._refusal = self._refusal or settled.refused[0][1]

    def _acknowledge(self, tag: int) -> None:
        self._link.acknowledge(tag)
        self.count += tag not in self._renewed


def without_returns(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without those by which the broker counts deliveries."""
    return {name: value for name, value in headers.items() if name not in {_RETURNS, _DELIVERIES}}


def with_headers(message: Message, headers: Mapping[str, Any]) -> Message:
    """Return a message with other headers."""
    old = message.properties
    properties = Properties(old.message_id, old.content_type, old.type, old.timestamp, old.correlation_id, headers)
    return Message(message.exchange, message.routing_key, message.body, properties)
