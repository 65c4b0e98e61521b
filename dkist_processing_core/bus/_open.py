"""
Choosing the bus by the settings, and the text about the choice; a test may use another bus.

Not here: the two transports (embedded, amqp).
"""

import contextlib
import logging
from collections.abc import Iterator
from itertools import islice

from dkist_processing_core.bus.embedded import JournalBus
from dkist_processing_core.bus.interface import Bus
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings

_SHOWN_SERVICES = 3
# The lines about an unexpected bus that this process has logged.
_logged: set[str] = set()
# The bus that is used whatever the settings name.
_in_use: Bus | None = None
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def bus_in_use(bus: Bus) -> Iterator[None]:
    """Use a bus for everything in this process, whatever the settings name."""
    global _in_use  # noqa: PLW0603 - a task reads its settings from the environment, and takes no bus
    before, _in_use = _in_use, bus
    try:
        yield
    finally:
        _in_use = before


def open_bus(settings: Settings) -> Bus:
    """Return the bus that the settings name. No connection and no file is opened."""
    if _in_use is not None:
        return _in_use
    if settings.names_broker:
        from dkist_processing_core.bus.amqp.bus import AmqpBus  # noqa: PLC0415 - the embedded journal needs no client

        return AmqpBus(settings)
    return JournalBus(settings)


def reason_for_bus(settings: Settings) -> str:
    """Return why the settings mean this bus."""
    if settings.names_broker:
        return f"MESH_CONFIG names {ISB_SERVICE}"
    others = ", ".join(islice(settings.mesh_config, _SHOWN_SERVICES))
    more = ", …" if len(settings.mesh_config) > _SHOWN_SERVICES else ""
    return f"MESH_CONFIG names {others}{more} and no {ISB_SERVICE}" if others else f"MESH_CONFIG names no {ISB_SERVICE}"


def unexpected_bus(settings: Settings) -> str | None:
    """Return a line about the embedded journal if `MESH_CONFIG` names services without the broker; otherwise None."""
    if settings.names_broker or not settings.mesh_config:
        return None
    return f"events go to {open_bus(settings).where}, since {reason_for_bus(settings)}"


def log_unexpected_bus(settings: Settings) -> None:
    """Log that line, if there is one, once for this process."""
    line = unexpected_bus(settings)
    if line is not None and line not in _logged:
        _logged.add(line)
        logger.info("%s", line)
