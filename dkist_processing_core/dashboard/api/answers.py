"""
The answers of the API as types, from which its document has their schemas.

Names are those of events in JSON; times are by RFC 3339 in UTC, and durations in seconds. A field is null if its value
was not reported. Not here: what the endpoints return (endpoints), and the document (openapi).
"""

from datetime import datetime
from typing import Any

import msgspec

from dkist_processing_core.dashboard.regressions import Measure
from dkist_processing_core.runs import State

Report = dict[str, Any]
"""The facts of a report, by their names in the event."""


class _Answer(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of an answer."""


class Identity(_Answer):
    """A run by what names it."""

    workflow_name: str
    workflow_version: str
    dag_run_id: str
    recipe_run_id: int | None


class _Attempt(_Answer):
    task_name: str
    attempt: int | None
    max_attempts: int | None
    state: State
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    last_report_at: datetime | None
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
    overdue: Report | None


class FailedAttempt(_Attempt):
    """The last attempt of a task of a listed run, which has failed."""


class AttemptOfRun(_Attempt):
    """An attempt in a list."""

    # A type has one base, and this one is that of the attempts of listed runs.
    workflow_name: str
    workflow_version: str
    dag_run_id: str
    recipe_run_id: int | None


class ListedRun(Identity):
    """A run in a list."""

    state: State
    verdict: State | None
    reason: str | None
    started_at: datetime | None
    started_before: datetime | None
    """The time of the first report, if the start was not reported."""
    ended_at: datetime | None
    last_report_at: datetime
    overdue: Report | None
    tasks: dict[str, int]
    """The number of tasks in each state."""
    failures: list[FailedAttempt]


class WholeAttempt(_Answer):
    """An attempt of a run with all that was reported."""

    number: int | None
    state: State
    cause: str | None
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    preparation_seconds: float | None = msgspec.field(name="environmentSeconds")
    duration_seconds: float | None
    end: Report | None
    contradictions: list[Report]
    progress: Report | None
    sample: Report | None
    sample_seconds: float | None
    overdue_after_seconds: float | None
    overdue: Report | None
    reporters: list[str]


class TaskOfRun(_Answer):
    """A task of a run."""

    name: str
    state: State
    engine_state: str | None
    attempts: list[WholeAttempt]


class Run(Identity):
    """A run with its tasks in dependency order."""

    state: State
    verdict: State | None
    reason: str | None
    overdue: Report | None
    started_at: datetime | None
    started_before: datetime | None
    ended_at: datetime | None
    graph: dict[str, Any] | None
    """Its `nodes` by name, and its `edges` as pairs of names."""
    tasks: list[TaskOfRun]
    implausible: list[Report]
    """The reports of which the time is implausible."""


class Attempt(Identity):
    """One attempt with the reports on it."""

    task_name: str
    attempt: WholeAttempt
    reports: list[Report]


class FirstFailure(_Answer):
    """The first failure of a family."""

    at: datetime
    workflow_name: str
    workflow_version: str
    task_name: str
    last_good_version: str | None


class Family(_Answer):
    """Failures that are alike."""

    family: str
    count: int
    final: int
    total: int
    first_at: datetime
    last_at: datetime
    first_failure: FirstFailure | None
    runs: int
    recipe_runs: int
    workflows: dict[str, list[str]]
    """The versions in which it occurred, by workflow."""
    tasks: list[str]
    last: AttemptOfRun


class Failures(_Answer):
    """The families of failures; if one is named, with its attempts."""

    families: list[Family]
    attempts: list[AttemptOfRun]
    stack: str | None
    finished_since: int | None
    """The number of attempts of its tasks that have finished since it occurred last."""


class Now(_Answer):
    """What goes on."""

    at: datetime
    is_bus_reachable: bool
    complete_until: datetime | None
    """Until when the store is known to have all reports."""
    runs: list[ListedRun]
    """The runs that go on."""
    attempts: list[AttemptOfRun]
    """The attempts without an end."""
    failures: list[Family]
    """The families of the failures of the last 24 hours."""


class Runs(_Answer):
    """A part of a list of runs."""

    first: int
    """The place of the first of them in the whole list, from 0."""
    total: int
    runs: list[ListedRun]


class Spread(_Answer):
    """The middle and the upper end of some durations."""

    count: int
    median: float
    p95: float


class Version(_Answer):
    """The latest runs of a version."""

    version: str
    first_at: datetime
    last_at: datetime
    runs: dict[str, int]
    """The number of runs in each state."""
    durations: Spread | None


class TaskOfVersion(_Answer):
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


class Change(_Answer):
    """A version after which a measure changed."""

    version: str
    measure: Measure
    before: float
    after: float
    runs_before: int
    runs_after: int
    probability: float
    """The probability of such a difference by chance."""


class Workflow(_Answer):
    """A workflow over its versions."""

    name: str
    versions: list[Version]
    tasks: list[TaskOfVersion]
    changes: list[Change]


class Archive(_Answer):
    """The archive of the bus."""

    messages: int
    oldest: datetime | None
    newest: datetime | None


class Queue(_Answer):
    """What the bus has for a consumer."""

    waiting: int
    readers: int | None
    dead: int


class Inbox(_Answer):
    """What the inbox has for a consumer."""

    waiting: int
    parked: int
    dead: int
    lag_seconds: float


class DeadLetters(_Answer):
    """A group of dead letters with the same failure."""

    id: str
    consumer: str
    count: int
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    reason: str


class Bus(_Answer):
    """The bus, as it was read last."""

    address: str
    problem: str | None
    """Why it cannot be read now."""
    away_since: datetime | None
    archive: Archive | None
    queues: dict[str, Queue]
    inboxes: dict[str, Inbox]
    pending: int
    """The number of messages in the outboxes of this host."""
    set_aside: int
    """The number of them that brokers have refused."""
    dead_letters: list[DeadLetters]


class Difference(_Answer):
    """A time in both runs, and by how much it is longer in the second."""

    name: str
    seconds: tuple[float | None, float | None]
    change_seconds: float


class Contribution(_Answer):
    """What a task on the critical path adds to the difference."""

    whole: Difference
    parts: list[Difference]


class Explanation(_Answer):
    """How the difference of the durations comes about."""

    whole: Difference
    tasks: list[Contribution]
    parts: list[Difference]
    outside: Difference


class SideOfTask(_Answer):
    """A task in one of the runs."""

    state: State
    attempts: int
    cause: str | None
    is_on_path: bool
    peak_memory: int | None
    hosts: list[str]
    queues: list[str]
    environments: list[str]


class ComparedTask(_Answer):
    """A task in both runs."""

    name: str
    a: SideOfTask | None
    b: SideOfTask | None
    whole: Difference
    parts: list[Difference]
    memory_change: int | None


class Contrast(_Answer):
    """A fact that differs."""

    what: str
    task: str | None
    a: str
    b: str


class Comparison(_Answer):
    """Two runs of a workflow, task by task."""

    a: Identity
    b: Identity
    explanation: Explanation | None
    tasks: list[ComparedTask]
    contrasts: list[Contrast]


class Chosen(_Answer):
    """The ids of dead letters or of groups."""

    ids: list[str]


class Changed(_Answer):
    """What was done with dead letters."""

    count: int
    obstacles: dict[str, str]
    """Why letters were left as they are, by their ids."""
