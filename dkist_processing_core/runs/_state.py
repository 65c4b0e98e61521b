"""
The states of all runs, folded from reports as they come.

Not here: how the reports on one run are kept (_kept).
"""

from collections.abc import Iterable
from dataclasses import astuple
from datetime import datetime

from dkist_processing_core.events import Event
from dkist_processing_core.runs._kept import HeldViews, Reports, RunKey, Shapes
from dkist_processing_core.runs._plausibility import Window
from dkist_processing_core.runs._views import RunView


class RunState:
    """
    Folds reports into the state of every run that they speak of.

    It keeps what the reports state, about 0.6 KB for each, until `forget`, and views of up to 50,000 reports, which
    take 0.5 KB for each.
    """

    def __init__(self, reports: Iterable[Event] = ()) -> None:
        """Begin with these reports."""
        self._runs: dict[RunKey, Reports] = {}
        self._shapes = Shapes()
        self._held = HeldViews()
        self._looked_at: list[RunKey] = []
        self._received_at: datetime | None = None
        for report in reports:
            self.fold(report)

    def fold(self, report: Event) -> bool:
        """Take a report into account, and return whether it had anything new."""
        if report.received_at is not None and (self._received_at is None or report.received_at > self._received_at):
            self._received_at = report.received_at
        key = (report.workflow_name, report.workflow_version, report.run_id)
        reports = self._runs.get(key)
        if reports is None:
            reports = self._runs[key] = Reports(key, self._shapes)
        is_new = reports.add(report)
        if is_new:
            self._held.let_go(key)
        return is_new

    def forget(self, run_id: str) -> bool:
        """
        Let go of all reports on the runs of an id, and return whether there were any.

        A later report on such a run begins it anew, without what was reported before: forget what ended long ago.
        """
        keys = self._keys(run_id)
        for key in keys:
            del self._runs[key]
            self._held.let_go(key)
        return bool(keys)

    @property
    def runs(self) -> tuple[RunView, ...]:
        """
        Every run, the one that began first first; one that states no plausible start comes before all others.

        A view is made anew where there are new reports on its run. It is made anew each time where the views held are
        of 50,000 reports already, unless the caller still holds the one before.
        """
        return self._views(self._runs)

    def run(self, run_id: str) -> RunView | None:
        """Return one run, by its id."""
        keys = self._keys(run_id)
        if keys != self._looked_at:
            for key in self._looked_at:
                if key in self._runs:
                    self._runs[key].unwatch()
            self._looked_at = keys
        else:
            # Such a caller looks again after each report.
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
