"""
The bus: RabbitMQ if `MESH_CONFIG` names a broker, otherwise the embedded journal. Both have the same interface.

Not here: delivering messages (delivery), decoding events (consumer), and the journal (journal).
"""

from dkist_processing_core.bus._open import bus_in_use, log_unexpected_bus, open_bus, reason_for_bus, unexpected_bus
from dkist_processing_core.bus.interface import MOST_AHEAD, ArchiveEnd, Bus, Offset, ReceivedMessage, Receiver

__all__ = [
    "MOST_AHEAD",
    "ArchiveEnd",
    "Bus",
    "Offset",
    "ReceivedMessage",
    "Receiver",
    "bus_in_use",
    "log_unexpected_bus",
    "open_bus",
    "reason_for_bus",
    "unexpected_bus",
]
