"""
An operator's actions on the outboxes of a host: list and deliver them, retry refused messages, change the broker.

The journals of telemetry are listed and delivered as well.

Not here: the thread that delivers (delivery.drainer), and the output (cli).
"""

from dkist_processing_core.outbox._delivery import Progress, drain
from dkist_processing_core.outbox._relay import Relay
from dkist_processing_core.outbox._retarget import Retargeting, retargeting
from dkist_processing_core.outbox._state import Destination, OutboxState, SpareState, find, outboxes, set_aside
from dkist_processing_core.outbox._telemetry import (
    TelemetryDrain,
    TelemetryProgress,
    TelemetryState,
    telemetry_journals,
)

__all__ = [
    "Destination",
    "OutboxState",
    "Progress",
    "Relay",
    "Retargeting",
    "SpareState",
    "TelemetryDrain",
    "TelemetryProgress",
    "TelemetryState",
    "drain",
    "find",
    "outboxes",
    "retargeting",
    "set_aside",
    "telemetry_journals",
]
