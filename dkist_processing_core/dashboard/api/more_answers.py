"""
The answers of the API about workflows, the bus, comparisons and dead letters as types.

Not here: answers about runs and failures (answers).
"""

from datetime import datetime

from dkist_processing_core.dashboard.analysis.regressions import Measure
from dkist_processing_core.dashboard.api.answers import Answer, Identity, Listed
from dkist_processing_core.runs import State


class Spread(Answer):
    """The middle and the upper end of some durations."""

    count: int
    median: float
    p95: float


class Version(Answer):
    """The latest runs of a version."""

    version: str
    first_at: datetime
    last_at: datetime
    runs: dict[str, int]
    """The number of runs in each state."""
    durations: Spread | None


class TaskOfVersion(Answer):
    """The attempts of a task in the latest runs of a version."""

    task_name: str
    version: str
    attempts: int
    failed: int
    failure_rate: float
    causes: dict[str, int]
    queued: Spread | None
    environment: Spread | None
    durations: Spread | None


class Change(Answer):
    """A version after which a measure changed."""

    version: str
    measure: Measure
    before: float
    after: float
    runs_before: int
    runs_after: int
    probability: float
    """The probability of such a difference by chance."""


class Workflow(Answer):
    """A workflow over its versions."""

    name: str
    versions: list[Version]
    tasks: list[TaskOfVersion]
    changes: list[Change]


class Archive(Answer):
    """The archive of the bus."""

    messages: int
    oldest: datetime | None
    newest: datetime | None


class Queue(Answer):
    """What the bus has for a consumer."""

    waiting: int
    readers: int | None
    dead: int


class Inbox(Answer):
    """What the inbox has for a consumer."""

    waiting: int
    parked: int
    dead: int
    lag_seconds: float


class DeadLetters(Answer):
    """A group of dead letters with the same failure; of a queue of the broker, only the oldest 10,000 are counted."""

    id: str
    consumer: str
    count: int
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    reason: str


class Bus(Answer):
    """The bus, as it was read last."""

    address: str
    problem: str | None
    """Why it, or a part of it, cannot be read now."""
    away_since: datetime | None
    archive: Archive | None
    queues: dict[str, Queue]
    inboxes: dict[str, Inbox]
    pending: int
    """The number of messages in the outboxes of this host."""
    set_aside: int
    """The number of them that brokers have refused."""
    dead_letters: Listed[DeadLetters]
    """The groups with the newest failures."""


class Difference(Answer):
    """A time in both runs, and by how much it is longer in the second."""

    name: str
    seconds: tuple[float | None, float | None]
    change_seconds: float


class Contribution(Answer):
    """What a task on the critical path adds to the difference."""

    whole: Difference
    parts: list[Difference]


class Explanation(Answer):
    """How the difference of the durations comes about."""

    whole: Difference
    tasks: list[Contribution]
    parts: list[Difference]
    outside: Difference


class SideOfTask(Answer):
    """A task in one of the runs."""

    state: State
    attempts: int
    cause: str | None
    is_on_path: bool
    peak_memory: int | None
    hosts: list[str]
    queues: list[str]
    environments: list[str]


class ComparedTask(Answer):
    """A task in both runs."""

    name: str
    a: SideOfTask | None
    b: SideOfTask | None
    whole: Difference
    parts: list[Difference]
    memory_change: int | None


class Contrast(Answer):
    """A fact that differs."""

    what: str
    task: str | None
    a: str
    b: str


class Comparison(Answer):
    """Two runs of a workflow, task by task."""

    a: Identity
    b: Identity
    explanation: Explanation | None
    tasks: list[ComparedTask]
    contrasts: list[Contrast]


class Chosen(Answer):
    """The ids of dead letters or of groups."""

    ids: list[str]


class Changed(Answer):
    """What was done with dead letters."""

    count: int
    obstacles: dict[str, str]
    """Why letters were left as they are, by their ids."""
