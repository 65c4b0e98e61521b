"""
What the store is asked for, and what it answers: runs, attempts, and families of failures.

It needs no database. Not here: asking (questions), and drawing (cli.draw).
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime

from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State

_WITH_SPARE = 120


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of runs, attempts or failures; a field that is left out does not restrict them."""

    since: datetime | None = None
    """Only those with a report since this time."""
    workflow: str | None = None
    """The name of the workflow, in which `*` and `?` stand for any characters and any character."""
    version: str | None = None
    states: tuple[State, ...] = ()
    cause: str | None = None
    recipe_run_id: int | None = None
    family: str | None = None
    """The whole id of a family of failures."""
    text: str | None = None
    """A part of the name of the workflow or of the id of the run, in any case."""
    until: datetime | None = None
    """Only those without a report since this time."""
    text_since: datetime | None = None
    """Look for the text only in runs with a report since this time, and in the ends of the ids of all runs."""
    failed_since: datetime | None = None
    """Look for the cause or the family of runs only in failures since this time."""

    @property
    def is_of_some(self) -> bool:
        """Whether more than a time restricts it."""
        return replace(self, since=None, until=None) != Choice()


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run in a list."""

    number: int
    run: Run
    state: State
    verdict: State | None
    reason: str | None
    began_at: datetime | None
    """When it began; the time of its first report if its start was not reported."""
    is_start_known: bool
    ended_at: datetime | None
    last_sign_at: datetime
    overdue: WorkflowOverdue | None
    """The alarm of a watcher that stands."""
    tasks: dict[State, int]
    """The number of its tasks in each state."""
    failures: tuple["StoredAttempt", ...]
    """The last attempts of its tasks that have failed, in the order of its tasks, at most as many as were requested."""


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt in a list."""

    run: Run
    task_name: str
    number: int | None
    max_attempts: int | None
    state: State
    is_final: bool
    """Whether it is the last attempt of its task: none has followed, and none is to follow."""
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    last_sign_at: datetime | None
    duration_seconds: float | None
    host: str | None
    done: float | None
    total: float | None
    unit: str | None
    note: str | None
    cause: str | None
    family: str | None
    summary: str | None
    log_url: str | None
    failed_at: datetime | None
    overdue: TaskOverdue | None
    """The alarm of a watcher that stands."""

    @property
    def began_at(self) -> datetime | None:
        """When it reached a worker, or else began to run."""
        return self.dispatched_at or self.started_at


@dataclass(frozen=True, slots=True)
class FirstFailure:
    """The first failure of a family, of those in the store."""

    at: float
    """When it failed, in seconds since 1970."""
    workflow_name: str
    version: str
    """The first bad version: that of the workflow in which the family occurred first."""
    task_name: str
    last_good_version: str | None
    """The last version before, of the same workflow, that ran the task with success; None if there is none."""


@dataclass(slots=True, kw_only=True)
class RecentFamily:
    """A family of failures, restricted to a choice."""

    family: str
    count: int
    """The number of attempts that failed so, of those in the choice."""
    last_at: datetime
    last: StoredAttempt
    """The attempt that failed so most recently."""
    final: int = 0
    """The number of attempts in the choice that were the last ones of their tasks."""
    tasks: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Family(RecentFamily):
    """Failures that are alike, with where and how often they occurred at any time."""

    total: int
    """The number of attempts that failed so, at any time and in any workflow."""
    first_at: datetime
    """When it failed so first, in any workflow."""
    runs: int = 0
    recipe_runs: int = 0
    first: FirstFailure | None = None
    """Its first occurrence in any workflow, whatever the choice."""
    workflows: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The workflows in which it occurred, with their versions."""


@dataclass(frozen=True, slots=True)
class WholeFamily:
    """A family with its occurrences in the choice."""

    family: Family
    failures: list[StoredAttempt]
    """Its failed attempts, the one that failed last first; at most as many as were requested."""
    stack: str | None
    """The stack of the exception of the last one; None if no report has it, or those on its run cannot be read."""
    finished_since: int
    """The number of attempts of its tasks that have finished since it occurred last."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the attempts of a task, or of all tasks in a queue, have used; None for what was not measured."""

    queue: str | None
    attempts: int
    """The number of attempts that began to run, those that died counted in."""
    died: int
    """The number of them that ended without a report of the task: by a signal, by `os._exit`, with their host."""
    out_of_memory: int
    """The number of them that ran out of memory."""
    memory_median: int | None
    memory_largest: int | None
    """
    The largest resident memory, in bytes: that of the median attempt, and of all.

    Of an attempt that died it is that of its last sample.
    """
    memory_limit: int | None
    """The memory that the control group of the latest attempt may use, in bytes."""
    cpu_mean: float | None
    """The processors in use, averaged over the time of the attempts."""
    cpu_limit: float | None
    """The processors that the control group of the latest attempt may use."""
    bytes_read: int | None
    bytes_written: int | None
    """The bytes of all attempts together, from and to storage."""
    workflow_name: str | None = None
    task_name: str | None = None
    """None for a queue."""

    @property
    def enough_memory(self) -> int | None:
        """
        The memory that would have been enough for all attempts with a fifth to spare, in bytes.

        None if that is not known: nothing was measured, or an attempt that needed more ran out of memory.
        """
        if self.memory_largest is None or self.out_of_memory:
            return None
        return self.memory_largest * _WITH_SPARE // 100

    @property
    def spare_memory(self) -> int | None:
        """By how much the memory could shrink, in bytes; None if it could not, or if that is not known."""
        if self.memory_limit is None or self.enough_memory is None or self.enough_memory >= self.memory_limit:
            return None
        return self.memory_limit - self.enough_memory
