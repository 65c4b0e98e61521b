"""
Finding a run among past events, which are read from the newest back to the start of the run.

Not here: reading the events (consumer.backwards), and drawing the run (cli.draw).
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from dkist_processing_core.consumer.backwards import Batch, may_be_of
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event, TaskEvent, WorkflowStarted
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.short_ids import ShortIds, is_unique, names_run, one_named_run, too_short
from dkist_processing_core.journal.message import Message, word
from dkist_processing_core.runs import RunState, RunView, plausible_time

Read = Callable[[Callable[[Message], bool]], Iterable[Batch]]
"""Reads the events of the messages for which a function returns True, the newest batch first."""
_KEPT_RUNS, _NAMED_RUNS = 20, 5
# A run without a plausible time is sorted as the oldest.
_NEVER = datetime.min.replace(tzinfo=UTC)
# By how much the clocks of the hosts of a run may differ.
_MARGIN = timedelta(seconds=5)
# The time in the id of a run whose tasks are called by hand.
_TIME_IN_ID = re.compile(r"__(\d{8}T\d{6})Z__")


def find_run(read: Read, named: str | None, *, where: str, workflow: str | None = None) -> RunView:
    """
    Return the state of the run that a person's text names, from all reports about it; without a text, the newest run.

    As long as another run may have the name, everything is read, but no more messages of complete runs are decoded.

    Args:
        read: Reads the events.
        named: The text.
        where: The name of the bus, for messages.
        workflow: The name of the only wanted workflow.

    Raises:
        DKISTProcessingCoreError: The events contain no such run, and the message names the newest runs in the events;
            or the text names several runs.
    """
    found = _read_back(read, named, workflow)
    run = None if named is None else one_named_run(named, found.seen)
    for each in found.newest_first():
        if run is None or (run.workflow_name, run.run_id) == (each.run.workflow_name, each.run.run_id):
            return each.view()
    if run is not None:
        # It was dropped in favour of many newer ones that the text could have named.
        return find_run(read, run.run_id, where=where, workflow=run.workflow_name)
    of_workflow = "" if workflow is None else f" of workflow {workflow!r}"
    if named is None:
        msg = f"there is no run{of_workflow} yet on {where}"
    else:
        newest = _newest_ids(read, workflow)
        known = ", ".join(map(ShortIds(newest).of, newest)) or "none"
        why = too_short(named)
        why = f", and {why}" if why else ""
        msg = f"there is no run {named!r}{of_workflow} on {where}{why}; the latest runs there: {known}"
    raise DKISTProcessingCoreError(msg)


def _read_back(read: Read, named: str | None, workflow: str | None) -> "PastRuns":
    """Return the runs that a text may name, read back until the first of them is complete and no other has its name."""
    found = PastRuns(_KEPT_RUNS, named)
    complete: set[tuple[str | None, str]] = set()

    def is_named(run_id: str) -> bool:
        return named is None or names_run(named, run_id)

    def has_rivals(run_id: str) -> bool:
        # Airflow gives runs of several workflows the same id, one of which may be as old as the archive.
        return named is not None and not is_unique(named, run_id) and (workflow is None or named != run_id)

    def takes(message: Message) -> bool:
        return may_be_of(message, is_named) and _named_in(message) not in complete

    for batch in read(takes):
        for event in reversed(batch.events):
            if is_named(event.run_id) and workflow in (None, event.workflow_name):
                found.add(event, batch.began)
        runs = found.newest_first()
        ended = [each.run for each in runs if each.is_complete(batch.newest)]
        if ended and ended[0] == runs[0].run and not has_rivals(ended[0].run_id):
            break
        if named is not None:
            complete.update((run.run_id, word(run.workflow_name)) for run in ended)
    return found


def _named_in(message: Message) -> tuple[str | None, str]:
    """Return the id and the workflow of a message's run, without decoding it."""
    return message.properties.correlation_id, "".join(message.routing_key.split(".")[2:3])


def _newest_ids(read: Read, workflow: str | None) -> list[str]:
    runs = PastRuns(_NAMED_RUNS)
    for batch in read(lambda _: True):
        for event in reversed(batch.events):
            if workflow in (None, event.workflow_name):
                runs.add(event, batch.began)
        if len(runs) == _NAMED_RUNS:
            break
    return list(dict.fromkeys(run.run.run_id for run in runs.newest_first()))


class PastRun:
    """The reports on a run that were read so far, from the newest back."""

    def __init__(self, run: Run) -> None:
        """Start without reports."""
        self.run = run
        self._reports: list[Event] = []
        self._started_at: datetime | None = None
        self._first_report: datetime | None = None
        self._first_attempts: dict[str, int] = {}

    def add(self, report: Event, began: datetime | None = None) -> None:
        """Add an older report; `began` is the start of the run if the time of the report is of no use."""
        self._reports.append(report)
        moment = began or plausible_time(report)
        if moment is not None:
            self._first_report = min(moment, self._first_report or moment)
            if isinstance(report, WorkflowStarted):
                self._started_at = min(moment, self._started_at or moment)
        if isinstance(report, TaskEvent) and report.attempt is not None:
            known = self._first_attempts.get(report.task_name, report.attempt)
            self._first_attempts[report.task_name] = min(known, report.attempt)

    @property
    def began(self) -> datetime:
        """The start of the run, as far as it was read: the real start is not later."""
        return self._started_at or self._first_report or _NEVER

    def is_complete(self, newest: float | None) -> bool:
        """
        Return True if no older report on the run is to be expected.

        The start of the run was read, and no attempt before it: an engine may report a later start of a run that was
        cleared. A run by hand has no such report; it is complete if older messages than its id have been read.

        Args:
            newest: The time of the newest message of the batch that was read last.
        """
        if self._started_at is not None:
            is_first = self._started_at - _MARGIN <= (self._first_report or self._started_at)
            return is_first and all(attempt == 1 for attempt in self._first_attempts.values())
        in_id = _TIME_IN_ID.search(self.run.run_id)
        if not self.run.is_by_hand or in_id is None or newest is None:
            return False
        began = datetime.strptime(in_id[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return newest < (began - _MARGIN).timestamp()

    def view(self) -> RunView:
        """Return the state of the run."""
        view = RunState(reversed(self._reports)).run(self.run.run_id)
        assert view is not None
        return view


class PastRuns:
    """The newest runs of those that were read: an archive of a week has more reports than should be held in memory."""

    def __init__(self, size: int, preferred: str | None = None) -> None:
        """Keep at most `size` runs; a run with the id `preferred` is dropped last."""
        self._size = size
        self._preferred = preferred
        self._runs: dict[Run, PastRun] = {}
        self._dropped: set[Run] = set()

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._runs)

    def add(self, report: Event, began: datetime | None = None) -> None:
        """Add an older report to its run, unless the run was dropped as too old; see `PastRun.add`."""
        run = report.run
        if run in self._dropped:
            return
        if run not in self._runs:
            self._runs[run] = PastRun(run)
        self._runs[run].add(report, began)
        if len(self._runs) > self._size:
            oldest = self.newest_first()[-1].run
            del self._runs[oldest]
            self._dropped.add(oldest)

    def newest_first(self) -> list[PastRun]:
        """Return the kept runs, those with the preferred id first, then the newest first."""
        return sorted(self._runs.values(), key=self._rank, reverse=True)

    @property
    def seen(self) -> list[Run]:
        """All runs, also those that were dropped."""
        return [*self._runs, *self._dropped]

    def _rank(self, each: PastRun) -> tuple[bool, datetime, str]:
        return each.run.run_id == self._preferred, each.began, each.run.run_id
