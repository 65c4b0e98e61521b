"""
Which times of reports are plausible, judged by the time at which reports were received.

A time far from that is shown as reported and decides nothing: anybody who may publish may state any time, and the clock
of a host may be wrong. Not here: what is derived from the plausible ones (_derivation).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Self

from dkist_processing_core.events import Event, WorkflowFailed, WorkflowFinished, WorkflowStarted

# A report may wait in an outbox, and is kept for so long by whatever stores runs.
_OLDEST = timedelta(days=400)
# From the midnight before, so that the window is the same all day; clocks that are wrong by a zone stay plausible.
_NEWEST = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Window:
    """The plausible times."""

    earliest: datetime
    latest: datetime

    @classmethod
    def around(cls, received_at: datetime) -> Self:
        """Return the window by the time of the last report received: from 400 days before to a day after it."""
        midnight = datetime.combine(received_at.astimezone(UTC).date(), time(tzinfo=UTC))
        return cls(midnight - _OLDEST, midnight + _NEWEST)

    def __contains__(self, moment: datetime) -> bool:
        """Return whether a time is plausible."""
        return self.earliest <= moment < self.latest


def plausible_time(event: Event) -> datetime | None:
    """Return an event's own time; None where it is far from the time at which a subscription received the event."""
    is_plausible = event.received_at is None or event.time in Window.around(event.received_at)
    return event.time if is_plausible else None


def stated_times(event: Event) -> tuple[datetime, ...]:
    """Return the times that an event states, the most telling first: the engine's, then its own."""
    engines = None
    if isinstance(event, WorkflowStarted):
        engines = event.started_at
    elif isinstance(event, WorkflowFinished | WorkflowFailed):
        engines = event.ended_at
    return (event.time,) if engines is None else (engines, event.time)
