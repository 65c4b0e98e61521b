"""
What all pages of one dashboard share: its bus, its store, its links to other systems.

Not here: the setting up (service).
"""

from dataclasses import dataclass

from dkist_processing_core.dashboard.bus.letters import Letters
from dkist_processing_core.dashboard.bus.status import BusStatus


@dataclass(frozen=True, slots=True)
class Site:
    """The facts about a dashboard that do not change while it runs, and its access to the bus."""

    bus: str
    """The address of the bus, without a password."""
    store: str
    """The address of the store, without a password."""
    version: str
    bus_status: BusStatus
    """What is known of the bus."""
    letters: Letters
    """The dead letters."""
    is_read_only: bool = False
    trace_url: str | None = None
    """The template of links to traces, with `{trace_id}` and `{span_id}`."""
    log_url: str | None = None
    """The template of links to logs, with `{workflow}`, `{version}`, `{run_id}`, `{task}` and `{attempt}`."""
