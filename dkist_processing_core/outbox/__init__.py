"""
What an operator does with the outboxes of a host: look at them, deliver them, try again what was refused, readdress.

Not here: the thread that delivers (drain), nor how anything is shown (cli).
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
