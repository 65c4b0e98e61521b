"""
The states of all runs, folded from reports as they arrive.

Not here: storing the reports on one run (_stored_reports).
"""

from collections.abc import Iterable
from dataclasses import astuple
from datetime import datetime

from dkist_processing_core.events import Event, WorkflowOverdue
from dkist_processing_core.runs._plausibility import Window
from dkist_processing_core.runs._stored_reports import HeldViews, ReportsOfRun, RunKey, Shapes
from dkist_processing_core.runs._views import RunView


class RunState:
    """
    Folds reports into the state of every run that they are about.

    It keeps the content of the reports, about 0.6 KB for each and up to 3 KB for a profile, until `forget`, and views
    of up to 50,000 reports, which take 0.5 KB for each. Of progress, samples and alarms, it keeps the latest of an
    attempt, or of the run.
    """

    def __init__(self, reports: Iterable[Event] = ()) -> None:
        """Start with these reports."""
        self._runs: dict[RunKey, ReportsOfRun] = {}
        self._shapes = Shapes()
        self._held = HeldViews()
        self._last_read: list[RunKey] = []
        self._received_at: datetime | None = None
        for report in reports:
            self.fold(report)

    def fold(self, report: Event) -> bool:
        """Add a report, and return True if it states anything new; one on a run that has not started does not."""
        if isinstance(report, WorkflowOverdue) and report.is_missed_start:
            return False
        if report.received_at is not None and (self._received_at is None or report.received_at > self._received_at):
            self._received_at = report.received_at
        key = (report.workflow_name, report.workflow_version, report.run_id)
        reports = self._runs.get(key)
        if reports is None:
            reports = self._runs[key] = ReportsOfRun(key, self._shapes)
        is_new = reports.add(report)
        if is_new:
            self._held.release(key)
        return is_new

    def forget(self, run_id: str) -> bool:
        """
        Discard all reports on the runs of an id, and return True if there were any.

        A later report on such a run starts it again, without the earlier reports: forget only runs that ended long ago.
        """
        keys = self._keys(run_id)
        for key in keys:
            del self._runs[key]
            self._held.release(key)
        return bool(keys)

    @property
    def runs(self) -> tuple[RunView, ...]:
        """
        All runs, oldest first; a run without a plausible start comes before all others.

        A view is rebuilt if there are new reports on its run. If the held views already cover 50,000 reports, it is
        rebuilt each time, unless the caller still holds the previous view.
        """
        return self._views(self._runs)

    def run(self, run_id: str) -> RunView | None:
        """Return the run with an id, or None if there is none."""
        keys = self._keys(run_id)
        if keys != self._last_read:
            for key in self._last_read:
                if key in self._runs:
                    self._runs[key].unwatch()
            self._last_read = keys
        else:
            # A caller that reads the same run again does so after each report.
            for key in keys:
                self._runs[key].watch()
        return next(iter(self._views(keys)), None)

    def _keys(self, run_id: str) -> list[RunKey]:
        return [key for key in self._runs if key[-1] == run_id]

    def _views(self, keys: Iterable[RunKey]) -> tuple[RunView, ...]:
        window = None if self._received_at is None else Window.around(self._received_at)
        views = []
        for key in keys:
            reports = self._runs[key]
            view = reports.view(window)
            self._held.hold(key, view, len(reports.kept))
            views.append(view)
        return tuple(sorted(views, key=lambda view: (_sortable(view.started_at), astuple(view.run))))


def _sortable(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
