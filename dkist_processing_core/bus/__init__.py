"""
The bus: RabbitMQ if `MESH_CONFIG` names a broker, otherwise the embedded journal. Both have the same interface.

Not here: threads that deliver (drain), decoding (consumer).
"""

from dkist_processing_core.bus._bus import Bus, Delivery, Receiver, topic_matches
from dkist_processing_core.bus._journal import Books, Entry, Journal, SetAside
from dkist_processing_core.bus._journal_bus import JournalBus
from dkist_processing_core.bus._locks import FileLock
from dkist_processing_core.bus._memory import Memory
from dkist_processing_core.bus._message import Message, Properties, routing_key, to_failure_message, to_message, word
from dkist_processing_core.bus._spare import (
    Spare,
    adopt,
    is_spare,
    left_behind,
    noted_on_host,
    remove_if_empty,
    spares_of,
)
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

__all__ = [
    "Books",
    "Bus",
    "Delivery",
    "Entry",
    "FileLock",
    "Journal",
    "JournalBus",
    "Memory",
    "Message",
    "Properties",
    "Receiver",
    "SetAside",
    "Spare",
    "adopt",
    "is_spare",
    "left_behind",
    "noted_on_host",
    "open_bus",
    "remove_if_empty",
    "routing_key",
    "spares_of",
    "to_failure_message",
    "to_message",
    "topic_matches",
    "word",
]


def open_bus(settings: DKISTProcessingCoreConfiguration) -> Bus:
    """Return the bus that the settings name; nothing is connected or opened yet."""
    if settings.names_broker:
        from dkist_processing_core.bus._amqp_bus import AmqpBus  # noqa: PLC0415 - the embedded journal needs no client

        return AmqpBus(settings)
    return JournalBus(settings)
