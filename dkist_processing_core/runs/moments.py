"""
The times of a run and its attempts, with missing times derived from the known ones: what a timeline draws.

Not here: the drawing (cli.draw, dashboard.drawing). Reporters on several hosts have different clocks, so no code here
relies on their order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dkist_processing_core.runs._views import AttemptView, RunView, TaskView
from dkist_processing_core.runs.critical_path import node_of, ran_from


class Part(StrEnum):
    """What an attempt does in a part of its time."""

    PAUSING = "pausing"
    """The attempt before has failed: the pause before the retry, until a worker has it."""
    WAITING = "waiting"
    """It waits for a free worker."""
    PREPARING = "preparing"
    """It has a worker, which prepares its environment."""
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the time of an attempt."""

    part: Part
    begin: datetime
    end: datetime


class Moments:
    """The times of a run and its attempts."""

    def __init__(self, view: RunView, now: datetime) -> None:
        """Collect the times of a run; a run or attempt without an end lasts until `now`."""
        self._view = view
        self._ends = _ends_of_nodes(view)
        self._upstreams: dict[str, list[str]] = {}
        for upstream, task in view.graph.edges if view.graph else ():
            self._upstreams.setdefault(task, []).append(upstream)
        known = [*self._known(), *([] if view.state.is_end else [now])]
        self.span = (min(known), max(known)) if known else (now, now)

    def _known(self) -> Iterator[datetime]:
        """Yield every known time."""
        attempts = [attempt for task in self._view.tasks for attempt in task.attempts]
        found: list[datetime | None] = [self._view.started_at, self._view.ended_at]
        for attempt in attempts:
            found += [attempt.dispatched_at, ran_from(attempt), attempt.ended_at]
            if attempt.progress is not None and attempt.progress not in self._view.implausible:
                found.append(attempt.progress.time)
        yield from (moment for moment in found if moment is not None)

    def duration(self, attempt: AttemptView) -> float | None:
        """Return the duration of an attempt in seconds, or its running time until now."""
        if attempt.duration_seconds is not None or attempt.started_at is None or attempt.state.is_end:
            return attempt.duration_seconds
        return max(0.0, (self.span[1] - attempt.started_at).total_seconds())

    def stretches(self, task: TaskView, attempt: AttemptView) -> list[Stretch]:
        """
        Return the times of a pause or of waiting, of preparation and of running of an attempt.

        An attempt that has ended without a known time has run for no time at the end of the run.
        """
        ended = attempt.ended_at or self.span[1]
        started = ran_from(attempt)
        dispatched = attempt.dispatched_at or started or ended
        place = task.attempts.index(attempt)
        part, ready = (
            (Part.PAUSING, task.attempts[place - 1].ended_at) if place else (Part.WAITING, self.ready_at(task.name))
        )
        stretches = []
        if ready is not None and ready < dispatched:
            stretches.append(Stretch(part, ready, dispatched))
        if dispatched < (started or ended):
            stretches.append(Stretch(Part.PREPARING, dispatched, started or ended))
        if started is not None or attempt.state.is_end:
            stretches.append(Stretch(Part.RUNNING, started or ended, ended))
        return stretches

    def ready_at(self, task_name: str) -> datetime | None:
        """Return when all upstream tasks of a task had ended; None if this is unknown."""
        if self._view.graph is None:
            return None
        upstreams = self._upstreams.get(node_of(task_name, self._view.graph), [])
        ends = [self._ends.get(upstream) for upstream in upstreams]
        known = [moment for moment in ends if moment is not None]
        if len(known) < len(ends):
            return None
        return max(known, default=self._view.started_at)


def _ends_of_nodes(view: RunView) -> dict[str, datetime | None]:
    """Return when the last task of each node ended, of those with an attempt; None if one of these has no known end."""
    ends: dict[str, datetime | None] = {}
    for task in view.tasks:
        if task.attempts:
            node, ended = node_of(task.name, view.graph), task.attempts[-1].ended_at
            before = ends.get(node, ended)
            ends[node] = None if before is None or ended is None else max(before, ended)
    return ends
