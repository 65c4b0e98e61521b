"""
An operator's actions on the outboxes of a host: list and deliver them, retry refused messages, change the broker.

Not here: the thread that delivers (delivery.drainer), and the output (cli).
"""

from dkist_processing_core.outbox._delivery import Progress, drain
from dkist_processing_core.outbox._relay import Relay
from dkist_processing_core.outbox._retarget import Retargeting, retargeting
from dkist_processing_core.outbox._state import Destination, OutboxState, SpareState, find, outboxes, set_aside

__all__ = [
    "Destination",
    "OutboxState",
    "Progress",
    "Relay",
    "Retargeting",
    "SpareState",
    "drain",
    "find",
    "outboxes",
    "retargeting",
    "set_aside",
]
