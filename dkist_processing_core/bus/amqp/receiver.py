"""
The receiver of a subscription on RabbitMQ.

Not here: the thread that serves its connection (consumer_thread), and the sources of messages (named_queue, archive).
"""

import queue
from typing import TYPE_CHECKING, Self

from dkist_processing_core.bus.amqp.consumer_thread import ConsumerThread, Source
from dkist_processing_core.errors import BusError
from dkist_processing_core.process import forks

_BATCH_BYTES = 4 * 1024 * 1024
_ANSWER_SECONDS = 0.5

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.bus.amqp.received import AmqpReceivedMessage


class AmqpReceiver:
    """
    A consumer whose connection is served by a thread, so that it stays alive while an event is processed.

    If the connection breaks, the thread connects again, and the broker delivers unacknowledged events again. The
    receiver closes when no reference to it is left, and when the process ends. Neither the thread nor a message holds
    a reference.
    """

    def __init__(self, bus: "AmqpBus", source: Source, *, in_batches: bool = False, only_watches: bool = False) -> None:
        """Connect, declare and bind; events that are published from now on are received."""
        self._thread = ConsumerThread(bus, source, in_batches=in_batches, only_watches=only_watches)
        self._finalizer = forks.finalize(self, self._thread.close)

    @property
    def missed(self) -> int:
        """Number of events that this subscription's name is known to have lost."""
        return self._thread.source.missed

    @property
    def is_connected(self) -> bool:
        """Whether the thread has a connection."""
        return self._thread.is_connected

    @property
    def connections(self) -> int:
        """How often the thread has connected."""
        return self._thread.connections

    def backlog(self) -> int | None:
        """Return how many messages are ready; None for a stream, beside another reader, or without a quick answer."""
        answer: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        source = self._thread.source
        self._thread.request(lambda link: answer.put(None if link is None else source.backlog(link)))
        try:
            return answer.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            return None

    def has_caught_up(self, requested_since: float) -> bool:
        """Return True if all events of the replay were received or wait for `receive`, or if this is closing."""
        return self._thread.source.has_caught_up(requested_since) or self._thread.is_closing

    def receive(self, timeout: float) -> "AmqpReceivedMessage | None":
        """
        Return the next event; None if none arrives within `timeout` seconds.

        Raises:
            BusError: This consumer cannot continue, and a further call cannot change that.
        """
        try:
            found = self._thread.messages.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(found, BusError):
            # Put it back, so that each later call raises it as well.
            self._thread.messages.put(found)
            raise found
        return found

    def receive_batch(self, most: int, timeout: float) -> "list[AmqpReceivedMessage]":
        """
        Return the events that have arrived, at most `most`; none if none arrives within `timeout` seconds.

        A batch of large messages has fewer: storing it takes a multiple of its size.
        """
        first = self.receive(timeout)
        batch = [] if first is None else [first]
        messages = self._thread.messages
        size = 0
        while batch and len(batch) < most and (size := size + len(batch[-1].message.body)) < _BATCH_BYTES:
            try:
                found = messages.get_nowait()
            except queue.Empty:
                break
            if isinstance(found, BusError):
                # The next call raises it.
                messages.put(found)
                break
            batch.append(found)
        return batch

    def close(self) -> None:
        """Carry out the pending requests, then disconnect."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()
