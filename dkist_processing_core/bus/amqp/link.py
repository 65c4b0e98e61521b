"""
A link to RabbitMQ with all operations: it declares the topology, publishes and consumes.

Not here: the operations themselves (declaring, publishing, consuming), and the connection below them (session).
"""

from dkist_processing_core.bus.amqp.consuming import Consuming, TaggedMessage
from dkist_processing_core.bus.amqp.declaring import Declaring
from dkist_processing_core.bus.amqp.publishing import Publishing
from dkist_processing_core.bus.amqp.session import RPC_SECONDS


class AmqpLink(Publishing, Declaring, Consuming):
    """One connection to the broker of the settings. Every failure is a `BusError` with a message for operators."""

    def last_of_stream(self, queue: str, timeout: float) -> TaggedMessage | None:
        """Return the last message of a stream; None if it has none. See `last_chunk_of_stream`."""
        return next(reversed(self.last_chunk_of_stream(queue, timeout)), None)

    def last_chunk_of_stream(self, queue: str, timeout: float) -> list[TaggedMessage]:
        """
        Return the last messages of a stream, which the broker stores together. The caller must not acknowledge them.

        A new stream does not count its messages yet, so this waits up to `timeout` seconds for one.
        """
        load = self.queue_load(queue)
        is_empty_or_new = load is not None and load.messages == 0
        return self.read_stream(queue, "last", timeout if is_empty_or_new else RPC_SECONDS)
