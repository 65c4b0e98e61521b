"""
The schedule of a run: the next attempt, and the effect of an attempt's end on its task and the downstream tasks.

Not here: running the attempts (_attempts), and reporting and showing them (engine).
"""

import heapq
import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.local._attempt_end import AttemptEnd
from dkist_processing_core.local.outcomes import RunResult, TaskOutcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dkist_processing_core.node import Node


@dataclass(slots=True)
class _Progress:
    """The state of one node."""

    node: "Node"
    outcome: TaskOutcome
    ready_since: float = 0.0


class Schedule:
    """The attempts of one run that are due now or later, and the outcome of each task so far."""

    def __init__(self, run: Run, nodes: "Iterable[Node]") -> None:
        """Store the nodes in dependency order. No attempt is due before `begin`."""
        self._run = run
        self._progress = {node.name: _Progress(node, TaskOutcome(TaskState.NO_STATUS)) for node in nodes}
        self._due: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self._is_stopped = False

    @property
    def names(self) -> list[str]:
        """The names of all tasks, in dependency order."""
        return list(self._progress)

    @property
    def result(self) -> RunResult:
        """The outcome of each task so far."""
        return RunResult(self._run.run_id, {name: each.outcome for name, each in self._progress.items()})

    def node_of(self, attempt: Attempt) -> "Node":
        """Return the node of an attempt's task."""
        return self._progress[attempt.task_name].node

    def begin(self) -> None:
        """Schedule the tasks that wait for no other task."""
        for name, progress in self._progress.items():
            if not progress.node.upstreams:
                self._add_first(name)

    @property
    def is_empty(self) -> bool:
        """Whether no attempt is due, now or later."""
        return not self._due

    @property
    def seconds_to_next(self) -> float | None:
        """The time in seconds until the next attempt is due; None if there is none."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    @property
    def next_due(self) -> Attempt | None:
        """The attempt that is due first, if it is due now; None otherwise."""
        return self._due[0][2] if self._due and self._due[0][0] <= time.monotonic() else None

    def queued_seconds(self, attempt: Attempt) -> float:
        """Return the time in seconds since an attempt was due."""
        return max(0.0, time.monotonic() - self._progress[attempt.task_name].ready_since)

    def take_next(self) -> None:
        """Remove the attempt that is due first: it is started."""
        heapq.heappop(self._due)

    def stop(self) -> list[Attempt]:
        """
        Remove all attempts: none is started any more.

        Returns:
            The last attempts of the tasks that have failed and waited for their next attempt.
        """
        self._is_stopped = True
        given_up = [replace(due, attempt=due.attempt - 1) for _, _, due in self._due if due.attempt > 1]
        self._due.clear()
        for attempt in given_up:
            progress = self._progress[attempt.task_name]
            progress.outcome = replace(progress.outcome, state=TaskState.FAILED)
        return given_up

    def record(self, end: AttemptEnd, *, succeeded: bool, is_over: bool) -> list[str]:
        """
        Record the end of an attempt, and schedule the attempts that follow from it.

        Args:
            end: The end of the attempt.
            succeeded: Whether its task has succeeded.
            is_over: Whether no attempt of this task follows.

        Returns:
            The names of the tasks that will not run, since they depend on one that failed.
        """
        attempt, progress = end.attempt, self._progress[end.attempt.task_name]
        spent = progress.outcome.duration_seconds + end.duration_seconds
        if not is_over:
            progress.outcome = TaskOutcome(TaskState.NO_STATUS, attempt.attempt, spent)
            self._add(replace(attempt, attempt=attempt.attempt + 1), after=progress.node.task.retry_delay_seconds)
            return []
        progress.outcome = TaskOutcome(TaskState.SUCCESS if succeeded else TaskState.FAILED, attempt.attempt, spent)
        if self._is_stopped:
            # The other tasks are not run because the run ends, whatever the outcome of this one.
            return []
        if not succeeded:
            return self._drop_downstreams(attempt.task_name)
        self._release_downstreams(attempt.task_name)
        return []

    def _add_first(self, name: str) -> None:
        task = self._progress[name].node.task
        self._add(Attempt(self._run, name, attempt=1, max_attempts=task.retries + 1), after=0.0)

    def _add(self, attempt: Attempt, after: float) -> None:
        due = time.monotonic() + after
        self._progress[attempt.task_name].ready_since = due
        heapq.heappush(self._due, (due, next(self._order), attempt))

    def _release_downstreams(self, name: str) -> None:
        for follower, progress in self._progress.items():
            upstreams = progress.node.upstream_names
            if name in upstreams and all(self._progress[each].outcome.succeeded for each in upstreams):
                self._add_first(follower)

    def _drop_downstreams(self, name: str) -> list[str]:
        failed, not_run = {name}, []
        # The nodes are in dependency order, so one pass reaches all of them.
        for follower, progress in self._progress.items():
            if failed.intersection(progress.node.upstream_names):
                failed.add(follower)
                if progress.outcome.state is TaskState.NO_STATUS:
                    progress.outcome = TaskOutcome(TaskState.UPSTREAM_FAILED)
                    not_run.append(follower)
        return not_run
