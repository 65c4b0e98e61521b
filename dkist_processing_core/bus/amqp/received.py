"""
An event that a subscription on RabbitMQ has received, until it is acknowledged or dead-lettered.

Not here: the thread that carries out these requests (consumer_thread).
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dkist_processing_core.journal.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from dkist_processing_core.bus.amqp.consumer_thread import ConsumerThread
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink


@dataclass(slots=True)
class AmqpReceivedMessage:
    """An event from a queue or the archive, with the link that it arrived on."""

    received: "TaggedMessage"
    link: "AmqpLink"
    thread: "ConsumerThread"
    is_new: bool
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.received.message

    @property
    def position(self) -> int | None:
        """The offset of the message in the archive; None if it comes from a queue."""
        return self.received.offset

    def acknowledge(self, wait: float = 0.0, *, with_earlier: bool = False) -> None:
        """Request the acknowledgement of this event; wait up to `wait` seconds until the broker has processed it."""
        self._settle(lambda link: self.thread.source.acknowledge(link, self.received, with_earlier=with_earlier), wait)

    def dead_letter(self, reason: str) -> None:
        """Request that the event is published to the queue's dead letters, with the reason."""
        self._settle(lambda link: self.thread.source.dead_letter(link, self.received, reason), 0.0)

    def _settle(self, action: "Callable[[AmqpLink], None]", wait: float) -> None:
        if self.is_settled or self.thread.is_closing:
            return
        self.is_settled = True
        is_done = threading.Event()

        def on_same_link(link: "AmqpLink | None") -> None:
            try:
                # A tag is valid on one connection only: on the next connection the broker delivers the event again.
                if link is not None and link is self.link:
                    action(link)
                    if wait:
                        link.synchronize()
            finally:
                is_done.set()

        self.thread.request(on_same_link)
        if wait and self.thread.source.name is not None:
            is_done.wait(wait)
