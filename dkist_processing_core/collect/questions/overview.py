"""
Answers about many runs: a page of a list, how many ended in each hour, how long they took, and what has changed.

It needs no database. Not here: asking (questions), and single runs, attempts and families (answers).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dkist_processing_core.collect.questions.answers import StoredRun
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State


class Order(StrEnum):
    """By what a list of runs is sorted."""

    LAST_REPORT = "last report"
    BEGAN = "began"
    DURATION = "duration"
    """A run without a known duration counts as the shortest."""
    WORKFLOW = "workflow"
    """By the name of the workflow; of the runs of each, the one that began last is the first."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """A part of a sorted list of runs."""

    runs: list[StoredRun]
    first: int
    """The place of the first of them in the whole list, from 0."""
    total: int
    """The number of runs in the whole list."""


@dataclass(frozen=True, slots=True)
class Hour:
    """The runs that ended within an hour."""

    began_at: datetime
    """The beginning of the hour."""
    ended: Mapping[State, int]
    """The number of runs that ended in each state; a state without one is missing."""


@dataclass(frozen=True, slots=True)
class Activity:
    """The runs that ended in the latest hours."""

    hours: tuple[Hour, ...]
    """All hours in their order, also those in which no run ended."""
    workflows: Mapping[str, tuple[Hour, ...]]
    """The same hours of each workflow of which a run ended in them, in the order of the names."""


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """The runs of one version of a workflow."""

    name: str
    version: str
    runs: Mapping[State, int]
    """The number of its runs in each state; a state without one is missing."""


@dataclass(frozen=True, slots=True)
class RunDuration:
    """How long a run took."""

    run: Run
    state: State
    began_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    """None if the run goes on, or its beginning or its end is not known."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the upper end of some durations, in seconds."""

    count: int
    median: float
    p95: float
    """The shortest of the durations that at least 95 of 100 do not exceed."""


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """The latest runs of one version of a workflow."""

    version: str
    first_at: datetime
    last_at: datetime
    """When the first and the last of them gave their last report."""
    runs: Mapping[State, int]
    """The number of them in each state; a state without one is missing."""
    durations: Spread | None
    """Of those that have finished."""


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """The attempts of a task in the latest runs of one version of a workflow; instances of a mapped task are one."""

    task_name: str
    version: str
    attempts: int
    """The number of attempts that have ended, with success or with a failure."""
    failed: int
    causes: Mapping[str, int]
    """The number of failures of each cause."""
    queued: Spread | None
    environment: Spread | None
    durations: Spread | None
    """Of the attempts that have finished: waiting for a worker, preparing the environment, and running."""

    @property
    def failure_rate(self) -> float:
        """The share of attempts that failed, from 0 to 1."""
        return self.failed / self.attempts if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class EarlierAttempt:
    """How long a successful attempt of a task took, in seconds; None for what is not known."""

    version: str
    ended_at: datetime | None
    queued_seconds: float | None
    preparation_seconds: float | None
    run_seconds: float

    @property
    def waiting_seconds(self) -> float:
        """How long it waited for a worker; 0 if that is not known."""
        return self.queued_seconds or 0.0

    @property
    def working_seconds(self) -> float:
        """How long its worker was busy with it: with its environment, then with the task itself."""
        return (self.preparation_seconds or 0.0) + self.run_seconds


@dataclass(frozen=True, slots=True)
class Changes:
    """What was derived again since a revision of the store."""

    revision: int
    """The present revision, from which to ask next."""
    runs: list[Run] = field(default_factory=list)
    """The runs of which the rows were derived again, in the order of their last derivation."""
    is_cut: bool = False
    """Whether others have changed as well: there were more than were requested, or runs were deleted."""
