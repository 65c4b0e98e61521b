"""
Choosing the bus by the settings.

Not here: the two transports (embedded, amqp).
"""

from dkist_processing_core.bus.embedded import JournalBus
from dkist_processing_core.bus.interface import Bus
from dkist_processing_core.settings.interface import Settings


def open_bus(settings: Settings) -> Bus:
    """Return the bus that the settings name. No connection and no file is opened."""
    if settings.names_broker:
        from dkist_processing_core.bus.amqp.bus import AmqpBus  # noqa: PLC0415 - the embedded journal needs no client

        return AmqpBus(settings)
    return JournalBus(settings)
