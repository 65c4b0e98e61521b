"""
The facts by which attempts and runs are judged, read from the store.

Not here: the queries (collect.questions.watched), and the judge (judging).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from dkist_processing_core.collect.keys import task_without_index
from dkist_processing_core.collect.listening import complete_until, spans
from dkist_processing_core.collect.questions.watched import (
    WatchedAttempt,
    WatchedRun,
    durations,
    watched_attempts,
    watched_runs,
)
from dkist_processing_core.watch.facts import Facts
from dkist_processing_core.watch.limits import LATEST, learnt_limit
from dkist_processing_core.watch.listening import Listening

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LEARNT_AGAIN_SECONDS = 300.0
# As long as the bus keeps events: a watcher that was away for longer no longer withdraws alarms about what has ended.
_ENDED_SECONDS = 8 * 24 * 3600.0
# The watcher also measures how much of the time since its last judgement the store has listened.
_ALWAYS_LISTENED_SECONDS = 3600.0


class FactsReader:
    """Reads the facts; it keeps the learnt limits for five minutes, since each needs a query."""

    def __init__(self, bus: str, *, idle_after: float) -> None:
        """
        Store what to read.

        Args:
            bus: The name of the bus, as the store has it.
            idle_after: The time without a report after which a run that runs no attempt is overdue, in seconds.
        """
        self._bus = bus
        self._idle_after = idle_after
        self._limits: dict[tuple[str, str], tuple[float, float | None]] = {}

    def read(self, connection: "Connection") -> Facts:
        """Return the facts of one state of the store."""
        until = complete_until(connection, self._bus) or 0.0
        ended_since = until - _ENDED_SECONDS
        attempts = watched_attempts(connection, ended_since=ended_since, complete_until=until)
        silent_since = until - self._idle_after
        runs = watched_runs(connection, silent_since=silent_since, ended_since=ended_since, complete_until=until)
        since = min((*_counted_from(attempts, runs), until - _ALWAYS_LISTENED_SECONDS))
        listening = Listening(spans(connection, self._bus, since=since))
        return Facts(attempts, runs, listening, self._learnt(connection, attempts, until))

    def _learnt(
        self, connection: "Connection", attempts: Iterable[WatchedAttempt], now: float
    ) -> dict[tuple[str, str], float]:
        """Return the learnt limits of the tasks that run without a limit of their author."""
        names = {
            (each.run.workflow_name, each.task_name): (each.run.workflow_name, task_without_index(each.task_name))
            for each in attempts
            if each.is_open and each.overdue_after_seconds is None
        }
        limits = {}
        for task in set(names.values()):
            learnt_at, limit = self._limits.get(task, (None, None))
            if learnt_at is None or not 0 <= now - learnt_at < _LEARNT_AGAIN_SECONDS:
                learnt_at, limit = now, learnt_limit(durations(connection, *task, LATEST))
            limits[task] = learnt_at, limit
        self._limits = limits
        return {name: limit for name, task in names.items() if (limit := limits[task][1]) is not None}


def _counted_from(attempts: Sequence[WatchedAttempt], runs: Sequence[WatchedRun]) -> Iterator[float]:
    """Yield the moments since which the judge counts the time of listening."""
    for attempt in attempts:
        if attempt.is_open and attempt.last_received_at is not None:
            yield attempt.last_received_at
            if attempt.started_at is not None:
                yield attempt.started_at + (attempt.clock_difference or 0.0)
    for run in runs:
        if run.is_idle and run.last_received_at is not None:
            yield run.last_received_at
