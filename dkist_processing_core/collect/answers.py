"""
What the store is asked for, and what it answers: runs, attempts, and families of failures.

It needs no database. Not here: asking (questions), and drawing (cli.draw).
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime

from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State


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

    @property
    def is_of_some(self) -> bool:
        """Whether more than a time restricts it."""
        return replace(self, since=None) != Choice()


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
    tasks: dict[State, int]
    """The number of its tasks in each state."""
    failures: tuple["StoredAttempt", ...]
    """The last attempts of its tasks that have failed."""


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

    @property
    def began_at(self) -> datetime | None:
        """When it reached a worker, or else began to run."""
        return self.dispatched_at or self.started_at


@dataclass(slots=True)
class Family:
    """Failures that are alike."""

    family: str
    count: int
    """The number of attempts that failed so, of those in the choice."""
    total: int
    """The number of attempts that failed so, at any time."""
    first_at: datetime
    last_at: datetime
    last: StoredAttempt
    """The attempt that failed so most recently."""
    final: int = 0
    """The number of attempts in the choice that were the last ones of their tasks."""
    runs: int = 0
    workflows: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The workflows in which it occurred, with their versions."""
    tasks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WholeFamily:
    """A family with its occurrences in the choice."""

    family: Family
    failures: list[StoredAttempt]
    """Its failed attempts, the one that failed last first; at most as many as were requested."""
    stack: str | None
    """The stack of the exception of the last one."""
    finished_since: int
    """The number of attempts of its tasks that have finished since it occurred last."""
