"""
The questions that the store answers: which runs there were, what runs now, what failed, and how often.

It is long because it is the whole interface to the store for those who ask. Not here: the answers (answers, overview),
their words and drawings (cli, dashboard), and keeping the store up to date (collector).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Connection, exists, func, select

from dkist_processing_core.collect import revisions
from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.listening import complete_until
from dkist_processing_core.collect.questions import (
    activity,
    changes,
    families,
    history,
    latest,
    naming,
    open_attempts,
    run_list,
    summaries,
    trends,
    watched,
)
from dkist_processing_core.collect.questions.answers import (
    Choice,
    Family,
    RecentFamily,
    StoredAttempt,
    StoredRun,
    Usage,
    WholeFamily,
)
from dkist_processing_core.collect.questions.choosing import of_failures_in_time, of_runs
from dkist_processing_core.collect.questions.of_rows import (
    ALL_ATTEMPTS,
    attempt_of,
    known_moment,
    runs_of,
)
from dkist_processing_core.collect.questions.overview import (
    Activity,
    Changes,
    EarlierAttempt,
    Order,
    RunDuration,
    RunPage,
    TaskFigures,
    VersionFigures,
    WorkflowSummary,
)
from dkist_processing_core.collect.questions.usage import usages
from dkist_processing_core.collect.questions.whole_runs import WholeRun, whole_run
from dkist_processing_core.collect.reports.stored import decoded_sizes, held, received_in, reports_on
from dkist_processing_core.collect.reports.waiting import number_of_stale_runs
from dkist_processing_core.collect.tables import ATTEMPTS, HAS_ALARM, HAS_FAILED, IS_OPEN, RUNS
from dkist_processing_core.errors import ReportsUnreadableError
from dkist_processing_core.events import Event, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.runs import State

_LATEST = (ATTEMPTS.c.failed_at.desc(), ATTEMPTS.c.run.desc(), ATTEMPTS.c.place.desc())


class Questions:
    """The questions to a store, answered within the transaction of a connection."""

    def __init__(self, connection: Connection) -> None:
        """Store the connection."""
        self._connection = connection

    def runs(self, choice: Choice, limit: int | None = None, *, most_failures: int | None = 0) -> list[StoredRun]:
        """
        Return the chosen runs, the one with the latest report first.

        Args:
            choice: The choice.
            limit: The largest number of them.
            most_failures: The largest number of failures that each of them has, the first ones; None for all.
        """
        query = (
            select(RUNS)
            .where(*of_runs(self._connection, choice))
            .order_by(RUNS.c.last_sign_at.desc(), RUNS.c.number.desc())
        )
        return runs_of(self._connection, query.limit(limit), most_failures)

    def run_page(
        self,
        choice: Choice,
        *,
        order: Order = Order.LAST_REPORT,
        is_descending: bool = True,
        first: int = 0,
        size: int = 50,
        most_failures: int | None = 0,
    ) -> RunPage:
        """
        Return a part of the sorted list of the chosen runs.

        Args:
            choice: The choice.
            order: By what the list is sorted.
            is_descending: Whether the latest, or the longest, or the last by name is the first.
            first: The place of the first run of the part in the list, from 0.
            size: The largest number of runs in the part.
            most_failures: The largest number of failures that each of them has, the first ones; None for all.
        """
        return run_list.page_of(
            self._connection,
            choice,
            order,
            is_descending=is_descending,
            first=first,
            size=size,
            most_failures=most_failures,
        )

    def run(self, run: Run) -> StoredRun | None:
        """Return a run; None if the store has no report on it."""
        identity = run_identity(run.workflow_name, run.workflow_version, run.run_id)
        found = runs_of(self._connection, select(RUNS).where(RUNS.c.identity == identity, RUNS.c.state.is_not(None)))
        return found[0] if found else None

    def last_run(self, workflow_name: str, run_id: str) -> StoredRun | None:
        """Return the run of this id in any version, of several the one with the latest report; None without one."""
        return naming.last_run(self._connection, workflow_name, run_id)

    def run_before(self, number: int) -> StoredRun | None:
        """
        Return the run of the same workflow that began last before the one with this number; None if it is the first.

        It is one that finished, if there is one.
        """
        return run_list.run_before(self._connection, number)

    def attempts(self, number: int) -> list[StoredAttempt]:
        """Return the attempts of the run with this number, in the order of its tasks."""
        query = ALL_ATTEMPTS.where(ATTEMPTS.c.run == number).order_by(ATTEMPTS.c.place)
        return [attempt_of(row) for row in self._connection.execute(query)]

    def runs_between(self, first: datetime, last: datetime, limit: int | None = None) -> list[StoredRun]:
        """
        Return the runs that had begun until `last` and not ended before `first`.

        First those that still went on at `last`; of these and of the others, the one that began last first. A run whose
        end was not reported ended with the last report on it.
        """
        return run_list.runs_between(self._connection, first, last, limit)

    def overdue_runs(self, limit: int, most_failures: int | None = 0) -> RunPage:
        """Return the runs that go on and about which an alarm stands, at most `limit`, oldest first."""
        chosen = (HAS_ALARM, RUNS.c.state == State.RUNNING)
        query = select(RUNS).where(*chosen).order_by(RUNS.c.begin_order, RUNS.c.number)
        total = self._connection.scalar(select(func.count()).select_from(RUNS).where(*chosen)) or 0
        return RunPage(runs_of(self._connection, query.limit(limit), most_failures), 0, total)

    def overdue_attempts(self, limit: int) -> tuple[list[StoredAttempt], int]:
        """
        Return the attempts without an end and about which an alarm stands, at most `limit`, oldest first.

        The number of all of them follows.
        """
        return open_attempts.overdue(self._connection, limit)

    def workflows(self) -> list[WorkflowSummary]:
        """Return all versions of all workflows with the number of their runs in each state, by name and version."""
        return summaries.summaries(self._connection)

    def activity(self, choice: Choice, until: datetime, hours: int = 24) -> Activity:
        """
        Return the runs that ended in each of the latest hours, of all chosen workflows and of each.

        Args:
            choice: The choice; its times do not restrict them, since the hours are the time.
            until: The time at which the last of the hours ends; it begins at a whole hour of UTC.
            hours: The number of hours.
        """
        return activity.activity(self._connection, choice, until, hours)

    def failures(self, choice: Choice, limit: int | None = None) -> list[StoredAttempt]:
        """Return the chosen failed attempts, the one that failed last first."""
        chosen = of_failures_in_time(self._connection, choice)
        rows = self._connection.execute(ALL_ATTEMPTS.where(*chosen).order_by(*_LATEST).limit(limit))
        return [attempt_of(row) for row in rows]

    def latest_failures(self, choice: Choice, most: int = 10_000) -> Choice:
        """
        Return a choice of failures with a later beginning, since which there are about `most` failures.

        These are all failures, or those of its family or else of its cause. It is the same choice if there are not
        more of them. A page then reads the details of about `most` failures at most.
        """
        return latest.latest_failures(self._connection, choice, most)

    def latest_runs(self, choice: Choice, most_runs: int = 20_000, most_failures: int = 10_000) -> Choice:
        """
        Return a choice of runs whose text is searched in about `most_runs` runs of its time, those reported last.

        Its cause and family are searched in about `most_failures` failures, those that occurred last. It is the same
        choice if there are not more of them.
        """
        return latest.latest_runs(self._connection, choice, most_runs, most_failures)

    def missed_starts(self, since: datetime) -> list[WorkflowOverdue]:
        """Return the alarms that stand about runs that were expected since a time, and have not started."""
        return [each for each in watched.missed_starts(self._connection, since) if not each.withdrawn]

    def family_trends(
        self, choice: Choice, families: Iterable[str], since: datetime, until: datetime, parts: int
    ) -> dict[str, tuple[int, ...]]:
        """
        Return how often each family occurred in each of some equal parts of a time.

        Args:
            choice: The choice; its times do not restrict the failures.
            families: The whole ids of the families.
            since: The beginning of the first part.
            until: The end of the last part.
            parts: The number of parts.
        """
        return trends.trends(self._connection, choice, families, since, until, parts)

    def run_durations(self, workflow_name: str, limit: int = 200) -> list[RunDuration]:
        """Return how long the latest runs of a workflow took, the one with the latest report first."""
        return history.run_durations(self._connection, workflow_name, limit)

    def version_figures(self, workflow_name: str, runs: int = 1000) -> list[VersionFigures]:
        """Return the figures of each version in the latest runs of a workflow, the version used last first."""
        return history.version_figures(self._connection, workflow_name, runs)

    def task_figures(self, workflow_name: str, runs: int = 200) -> list[TaskFigures]:
        """Return the figures of each task and version in the latest runs of a workflow, by the names of the tasks."""
        return history.task_figures(self._connection, workflow_name, runs)

    def earlier_attempts(
        self, workflow_name: str, task_names: Iterable[str], *, before: datetime | None = None, limit: int = 50
    ) -> dict[str, list[EarlierAttempt]]:
        """
        Return the latest successful attempts of tasks, by the name of the task without an index, the latest first.

        Args:
            workflow_name: The name of the workflow, of which all versions count.
            task_names: The names of the tasks; instances of a mapped task are one.
            before: Only attempts that ended before this time.
            limit: The largest number of attempts of each task.
        """
        return history.earlier_attempts(self._connection, workflow_name, task_names, before, limit)

    def revision(self) -> int:
        """Return the revision of the store, which grows with each change of it; it reads one row."""
        return revisions.revision(self._connection)

    def complete_until(self, bus: str) -> float | None:
        """
        Return the last moment at which the store had all reports on a bus, in seconds since 1970; None if it never had.

        Args:
            bus: The text by which the bus is known in the store, that of `archive_of`.
        """
        return complete_until(self._connection, bus)

    def changed_since(self, revision: int, limit: int = 1000) -> Changes:
        """Return at most `limit` of the runs that were derived again since a revision, those that changed last."""
        return changes.changed_since(self._connection, revision, limit)

    def idle_runs(
        self, choice: Choice, *, silent_since: datetime | None = None, most_failures: int | None = 0
    ) -> list[StoredRun]:
        """
        Return the runs without an end and without an open attempt, the one with the oldest report first.

        Args:
            choice: The choice.
            silent_since: Only those without a report since this time.
            most_failures: The largest number of failures that each of them has, the first ones; None for all.
        """
        is_open = select(ATTEMPTS.c.run).where(ATTEMPTS.c.run == RUNS.c.number, IS_OPEN)
        query = select(RUNS).where(*of_runs(self._connection, choice), RUNS.c.state == State.RUNNING, ~exists(is_open))
        if silent_since is not None:
            query = query.where(RUNS.c.last_sign_at < silent_since.timestamp())
        return runs_of(self._connection, query.order_by(RUNS.c.last_sign_at, RUNS.c.number), most_failures)

    def states(self, choice: Choice) -> dict[State, int]:
        """Return the number of the chosen runs in each state."""
        return run_list.states_of(self._connection, choice)

    def number_of_open_attempts(self) -> int:
        """Return the number of attempts without an end."""
        return open_attempts.number_of_open(self._connection)

    def open_attempts(
        self, choice: Choice, *, silent_since: datetime | None = None, limit: int | None = None
    ) -> list[StoredAttempt]:
        """
        Return the attempts without an end, oldest first.

        Args:
            choice: The choice.
            silent_since: Only those without a report since this time.
            limit: The largest number of them.
        """
        return open_attempts.open_attempts(self._connection, choice, silent_since, limit)

    def recent_families(self, choice: Choice, limit: int | None = None) -> list[RecentFamily]:
        """Return the families of the chosen failures, without other failures, the one that occurred last first."""
        return families.recent_families(self._connection, choice, limit)

    def families(self, choice: Choice, limit: int | None = None) -> list[Family]:
        """Return the families of the chosen failures, the one that occurred last first."""
        return families.whole_families(self._connection, choice, limit)

    def usages(self, choice: Choice) -> tuple[list[Usage], list[Usage]]:
        """Return what each task of a choice, and each queue of these tasks, has used."""
        return usages(self._connection, choice)

    def families_named(self, beginning: str) -> list[str]:
        """Return the ids of the families that begin with a text, in any case; a whole id names that family alone."""
        whole = select(ATTEMPTS.c.family).where(HAS_FAILED, ATTEMPTS.c.family == beginning).limit(1)
        if self._connection.scalar(whole) is not None:
            return [beginning]
        is_named = func.lower(ATTEMPTS.c.family).startswith(beginning.lower(), autoescape=True)
        query = select(ATTEMPTS.c.family).distinct().where(HAS_FAILED, is_named).order_by(ATTEMPTS.c.family)
        return list(self._connection.scalars(query))

    def family(self, choice: Choice, limit: int | None = None) -> WholeFamily | None:
        """Return the family of a choice with at most `limit` of its failures; None if none of them is chosen."""
        found = self.families(choice)
        if not found:
            return None
        chosen = of_failures_in_time(self._connection, choice)
        rows = self._connection.execute(ALL_ATTEMPTS.where(*chosen).order_by(*_LATEST).limit(limit)).all()
        (family,), (last, *_) = found, rows
        finished = families.finished_since(self._connection, family)
        stack = families.stack_of(self._connection, last.run, family.last)
        return WholeFamily(family, [attempt_of(row) for row in rows], stack, finished)

    def run_number(self, named: str, *, workflow: str | None = None) -> int | None:
        """
        Return the number of the run that a person's text names; None if it names none.

        Raises:
            IdentityError: The text names several runs; the message lists them.
        """
        return naming.run_number(self._connection, named, workflow)

    def whole_run(self, run: Run) -> WholeRun | None:
        """Return a run with all reports on it, and its state; None if the store does not have it."""
        return whole_run(self._connection, run)

    def reports(self, number: int) -> list[Event]:
        """
        Return the stored reports on a run, each with the time at which it was received, in the order of these times.
        """
        return [
            report.event.with_acknowledgement(lambda: None, known_moment(report.received_at))
            for report in reports_on(self._connection, number)
        ]

    def reports_on_each(self, numbers: Iterable[int]) -> Iterator[list[Event] | None]:
        """
        Yield the stored reports on each of these runs as they were received, without stacks, logs and profiles.

        It is None for a run of which the reports cannot be read.
        """
        for stored in held(self._connection, list(numbers)).values():
            try:
                yield [report.event for report in received_in(stored)]
            except ReportsUnreadableError:
                yield None

    def decoded_sizes(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return about how many bytes the reports on each of these runs take in memory, in the order of the runs."""
        return decoded_sizes(self._connection, numbers)

    def number_of_stale_runs(self, bus: str) -> int:
        """Return of how many runs the rows lack reports that cannot be read together with the earlier ones."""
        until = self.complete_until(bus)
        return 0 if until is None else number_of_stale_runs(self._connection, until)

    def short_ids(self, run_ids: Iterable[str]) -> ShortIds:
        """Return the short ids of these runs, which no other run in the store has."""
        return naming.short_ids(self._connection, run_ids)
