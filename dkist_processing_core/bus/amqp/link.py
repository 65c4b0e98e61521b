"""
A link to RabbitMQ with all operations: it declares the topology, publishes and consumes.

Not here: the operations themselves (declaring, publishing, consuming), and the connection below them (session).
"""

from dkist_processing_core.bus.amqp.consuming import Consuming
from dkist_processing_core.bus.amqp.publishing import Publishing


class AmqpLink(Publishing, Consuming):
    """One connection to the broker of the settings. Every failure is a `BusError` with a message for operators."""
