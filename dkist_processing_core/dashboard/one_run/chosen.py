"""
The run that an address names, with all that its pages need: the reports, its state, and the times that can be visited.

Not here: the pages (pages.run, pages.attempt), and what is left out for a time of the past (past).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.collect.questions.whole_runs import WholeRun, hosts_of
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.past import reports_until
from dkist_processing_core.events import Event, TaskEvent
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import RunView, kept_reports, run_view


@dataclass(frozen=True, slots=True)
class OneRun:
    """A run at the time that is asked for."""

    whole: WholeRun
    """The run as it is now."""
    view: RunView
    """The run at that time."""
    until: datetime
    """The present, or the time of the past: what goes on lasts until then."""
    of_past: Sequence[Event] | None
    """The reports from which the view of the past is derived; None for the present."""

    @property
    def left_out(self) -> int:
        """The number of reports that the time of the past leaves out."""
        return 0 if self.of_past is None else len(self.whole.bodies) - len(self.of_past)

    @property
    def hosts(self) -> Mapping[tuple[str, int | None], str]:
        """The host of each attempt that had reported one until then, by task and number."""
        return self.whole.hosts if self.of_past is None else hosts_of(self.of_past)

    def reports_on(self, task_name: str, attempt: int | None) -> Sequence[Event]:
        """Return the reports on an attempt until then."""
        if self.of_past is None:
            return self.whole.reports_on(task_name, attempt)
        return [
            report
            for report in self.of_past
            if isinstance(report, TaskEvent) and (report.task_name, report.attempt) == (task_name, attempt)
        ]


def one_run(asked: Asked) -> OneRun:
    """
    Return the run that the address names.

    Raises:
        PageError: The address names no run, or the store does not have it, or not yet at the time of the past, or that
            time is in the future.
    """
    named = run_in(asked)
    whole = asked.questions.whole_run(named)
    if whole is None:
        raise PageError(
            f"the store has no run {named.run_id} of {named.workflow_name} {named.workflow_version}; expected one of "
            "those on the page Runs",
            404,
        )
    if asked.at is None:
        return OneRun(whole, whole.view, asked.now, None)
    # The clock of a host may be ahead.
    asked.check_past(max((asked.now, *whole.moments[-1:])), "now, or than the last report on this run")
    reports = reports_until(whole.reports, asked.at)
    if not reports:
        raise PageError(
            f"the first report on this run is later than {asked.at.isoformat()}; expected a later time", 404
        )
    view = run_view(kept_reports(reports), received_at=whole.received_at)
    return OneRun(whole, view, asked.at, reports)


def run_in(asked: Asked) -> Run:
    """
    Return the identity of the run in the address. An empty version is left out in an address.

    Raises:
        PageError: The name of the workflow or the id of the run is missing.
    """
    missing = [name for name in ("workflow", "id") if asked.text(name) is None]
    if missing:
        raise PageError(
            f"{' and '.join(missing)} is missing in the address; expected workflow, version and id of a run"
        )
    return Run(asked.query["workflow"], asked.query.get("version", ""), asked.query["id"], None)


@dataclass(frozen=True, slots=True)
class Step:
    """A time of a run that can be visited."""

    at: datetime
    place: float
    """Its place between the first and the last time of the run, in percent."""
    is_current: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """The times of a run as a slider, and the ones around the time that is shown."""

    steps: Sequence[Step]
    previous: datetime | None
    next: datetime | None
    shown: float
    """The place of the time that is shown, in percent; 100 for the present."""


def steps_of(moments: Sequence[datetime], at: datetime | None, most: int = 60) -> Steps:
    """
    Return the times that can be visited from the one that is shown.

    Args:
        moments: The times of the reports on the run, ascending.
        at: The time that is shown; None for the present.
        most: The largest number of steps of the slider; of more times, it has evenly spaced ones.
    """
    if not moments:
        return Steps((), None, None, 100.0)
    first, last = moments[0], moments[-1]
    seconds = (last - first).total_seconds() or 1.0

    def place(moment: datetime) -> float:
        return min(100.0, max(0.0, (moment - first).total_seconds() / seconds * 100))

    chosen = dict.fromkeys(
        moments if len(moments) <= most else (moments[each * (len(moments) - 1) // (most - 1)] for each in range(most))
    )
    before = len(moments) if at is None else bisect_left(moments, at)
    after = len(moments) if at is None else bisect_right(moments, at)
    return Steps(
        steps=[Step(each, place(each), each == at) for each in chosen],
        previous=moments[before - 1] if before else None,
        next=moments[after] if after < len(moments) else None,
        shown=100.0 if at is None else place(at),
    )
