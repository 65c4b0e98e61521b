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
from dkist_processing_core.identity.short_ids import ShortIds, named_run, names_run, too_short
from dkist_processing_core.journal.message import Message
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


def find_run(read: Read, named: str | None, *, where: str) -> RunView:
    """
    Return the state of the run that a person's text names, from all reports about it; without a text, the newest run.

    Raises:
        DKISTProcessingCoreError: The events contain no such run, and the message names the newest runs in the events;
            or the text names several of the runs that were read.
    """
    found = PastRuns(_KEPT_RUNS)

    def is_named(run_id: str) -> bool:
        return named is None or names_run(named, run_id)

    for batch in read(lambda message: may_be_of(message, is_named)):
        for event in reversed(batch.events):
            if is_named(event.run_id):
                found.add(event)
        if found.is_newest_complete(batch.newest):
            break
    runs = found.newest_first()
    run_id = None if named is None else named_run(named, (each.run.run_id for each in runs))
    for each in runs:
        if run_id in (None, each.run.run_id):
            return each.view()
    if named is None:
        msg = f"there is no run yet on {where}"
    else:
        newest = _newest_ids(read)
        known = ", ".join(map(ShortIds(newest).of, newest)) or "none"
        why = too_short(named)
        msg = f"there is no run {named!r} on {where}{f', and {why}' if why else ''}; the latest runs there: {known}"
    raise DKISTProcessingCoreError(msg)


def _newest_ids(read: Read) -> list[str]:
    runs = PastRuns(_NAMED_RUNS)
    for batch in read(lambda _: True):
        for event in reversed(batch.events):
            runs.add(event)
        if len(runs) == _NAMED_RUNS:
            break
    return [run.run.run_id for run in runs.newest_first()]


class PastRun:
    """The reports on a run that were read so far, from the newest back."""

    def __init__(self, run: Run) -> None:
        """Start without reports."""
        self.run = run
        self._reports: list[Event] = []
        self._started_at: datetime | None = None
        self._first_report: datetime | None = None
        self._first_attempts: dict[str, int] = {}

    def add(self, report: Event) -> None:
        """Add an older report."""
        self._reports.append(report)
        moment = plausible_time(report)
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

    def __init__(self, size: int) -> None:
        """Keep at most `size` runs."""
        self._size = size
        self._runs: dict[Run, PastRun] = {}
        self._dropped: set[Run] = set()

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._runs)

    def add(self, report: Event) -> None:
        """Add an older report to its run, unless the run was dropped as too old."""
        run = report.run
        if run in self._dropped:
            return
        if run not in self._runs:
            self._runs[run] = PastRun(run)
        self._runs[run].add(report)
        if len(self._runs) > self._size:
            oldest = self.newest_first()[-1].run
            del self._runs[oldest]
            self._dropped.add(oldest)

    def newest_first(self) -> list[PastRun]:
        """Return the runs, the newest first."""
        return sorted(self._runs.values(), key=lambda each: (each.began, each.run.run_id), reverse=True)

    def is_newest_complete(self, newest: float | None) -> bool:
        """Return True if the newest run is complete; see `PastRun.is_complete`."""
        runs = self.newest_first()
        return bool(runs) and runs[0].is_complete(newest)
