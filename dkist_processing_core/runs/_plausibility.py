"""
The plausibility of times in reports, judged by the time at which reports were received.

A time far from that is shown as reported, but has no effect: every publisher may state any time, and the clock of a
host may be wrong. Not here: the use of the plausible times (_derivation).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Self

from dkist_processing_core.events import Event, WorkflowEnd, WorkflowStarted

# A report may wait in an outbox, and a store of runs may keep it for this long.
_OLDEST = timedelta(days=400)
# It begins at the previous midnight, so that the window is the same all day; a clock that is wrong by a zone stays
# plausible.
_NEWEST = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Window:
    """The range of plausible times."""

    earliest: datetime
    latest: datetime

    @classmethod
    def around(cls, received_at: datetime) -> Self:
        """Return the window for the time of the last received report: from 400 days before to a day after it."""
        midnight = datetime.combine(received_at.astimezone(UTC).date(), time(tzinfo=UTC))
        return cls(midnight - _OLDEST, midnight + _NEWEST)

    def __contains__(self, moment: datetime) -> bool:
        """Return True if a time is plausible."""
        return self.earliest <= moment < self.latest


def plausible_time(event: Event) -> datetime | None:
    """Return the most informative time that an event states and that is near the time at which it was received."""
    window = None if event.received_at is None else Window.around(event.received_at)
    return next((moment for moment in stated_times(event) if window is None or moment in window), None)


def stated_times(event: Event) -> tuple[datetime, ...]:
    """Return the times that an event states, the most informative first: the engine's, then its own."""
    engines = None
    if isinstance(event, WorkflowStarted):
        engines = event.started_at
    elif isinstance(event, WorkflowEnd):
        engines = event.ended_at
    return (event.time,) if engines is None else (engines, event.time)
