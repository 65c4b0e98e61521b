"""
The signs of life of attempts: the reports of their launchers and their tasks, with the times of their reception.

A sign that a later one has replaced in the store still counts. Not here: the rows (rows).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dkist_processing_core.events import Event, Reporter, TaskEvent, TaskOverdue
from dkist_processing_core.runs import Window

Key = tuple[str, int | None]
"""The name of a task, and the number of the attempt."""
_NEVER = -math.inf
_ALIVE = (Reporter.LAUNCHER, Reporter.TASK)


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of the signs of life of one attempt; times are seconds since 1970."""

    at: float | None
    """The latest time of one, by the clock of its host; None if none has a plausible time."""
    received_at: float
    """When the last one was received, by the clock of the store."""
    clock_difference: float | None
    """The smallest difference of reception and time, in seconds: at least that of both clocks."""

    def joined(self, other: "Signs") -> "Signs":
        """Return what both know."""
        ats = [at for at in (self.at, other.at) if at is not None]
        differences = [each for each in (self.clock_difference, other.clock_difference) if each is not None]
        received_at = max(self.received_at, other.received_at)
        return Signs(max(ats, default=None), received_at, min(differences, default=None))


def signs_of(
    received: Iterable[tuple[Event, float, bool]], plausible: Window, before: Mapping[Key, Signs]
) -> dict[Key, Signs]:
    """
    Return the signs of life of each attempt.

    Args:
        received: Reports on a run, with the times of their reception, and whether each is kept. A sample that a later
            one has replaced may be a late repetition: that it was received is no sign of life.
        plausible: The range of times that are not wrong by days.
        before: What was known of them without these reports.
    """
    latest: dict[Key, float] = {}
    last: dict[Key, float] = {}
    differences: dict[Key, float] = {}
    for event, received_at, is_kept in received:
        if event.reported_by not in _ALIVE or not isinstance(event, TaskEvent) or isinstance(event, TaskOverdue):
            continue
        key = (event.task_name, event.attempt)
        last[key] = max(last.get(key, _NEVER), received_at if is_kept else _NEVER)
        if event.time in plausible:
            at = event.time.timestamp()
            latest[key] = max(latest.get(key, at), at)
            differences[key] = min(differences.get(key, math.inf), received_at - at)
    found = {key: Signs(latest.get(key), last[key], differences.get(key)) for key in last}
    return {**before, **{key: each.joined(before[key]) if key in before else each for key, each in found.items()}}
