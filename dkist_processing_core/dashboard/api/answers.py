"""
The answers of the API about runs and failures as types, from which its document has their schemas.

Names are those of events in JSON; times are by RFC 3339 in UTC, and durations in seconds. A field is null if its value
was not reported. Not here: answers about workflows, the bus and comparisons (more_answers), what the endpoints return
(endpoints), and the document (openapi).
"""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from dkist_processing_core.runs import State

MOST_LISTED, MOST_FAMILIES, MOST_FAILURES = 1000, 100, 10
"""The largest numbers of runs or attempts in an answer, of families in that about the present, of failures of a run."""
_T = TypeVar("_T")
Listed = Annotated[list[_T], msgspec.Meta(max_length=MOST_LISTED)]
"""A list with a limit, which its schema states."""
Report = dict[str, Any]
"""The facts of a report, by their names in the event."""


class Answer(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of an answer."""


class Identity(Answer):
    """A run by what names it."""

    workflow_name: str
    workflow_version: str
    dag_run_id: str
    recipe_run_id: int | None


class _Attempt(Answer):
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
    failures: Annotated[list[FailedAttempt], msgspec.Meta(max_length=MOST_FAILURES)]
    """The first of them."""


class WholeAttempt(Answer):
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


class TaskOfRun(Answer):
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


class FirstFailure(Answer):
    """The first failure of a family."""

    at: datetime
    workflow_name: str
    workflow_version: str
    task_name: str
    last_good_version: str | None


class Family(Answer):
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


class Failures(Answer):
    """The families of failures; if one is named, with its attempts."""

    since: datetime | None
    """Since when failures are counted: the latest 10,000 of them, and none before a time that was given."""
    families: Listed[Family]
    attempts: Listed[AttemptOfRun]
    stack: str | None
    finished_since: int | None
    """The number of attempts of its tasks that have finished since it occurred last."""


class Now(Answer):
    """What goes on."""

    at: datetime
    is_bus_reachable: bool
    complete_until: datetime | None
    """Until when the store is known to have all reports."""
    runs: Listed[ListedRun]
    """The runs that go on, those that were reported last."""
    attempts: Listed[AttemptOfRun]
    """The attempts without an end, the oldest ones."""
    overdue_runs: Listed[ListedRun]
    """The runs that go on and about which an alarm stands, the oldest ones."""
    overdue_attempts: Listed[AttemptOfRun]
    """The attempts without an end about which an alarm stands, the oldest ones."""
    missed_starts: Listed[Report]
    """The starts that were expected in the last 24 hours and missed, the latest ones."""
    failures_since: datetime
    """Since when failures are counted: the latest 10,000 of the last 24 hours."""
    failures: Annotated[list[Family], msgspec.Meta(max_length=MOST_FAMILIES)]
    """The families of these failures, those that occurred last."""


class Runs(Answer):
    """A part of a list of runs."""

    first: int
    """The place of the first of them in the whole list, from 0."""
    total: int
    text_since: datetime | None
    """A text was looked for in the runs with a report since this time, and in the ends of the ids of all; or in all."""
    failed_since: datetime | None
    """A cause was looked for in the failures since this time; or in all."""
    runs: Listed[ListedRun]
