"""
The launcher's reports, opened when the first one is due.

The modules for events and spans take longest to import, so the task is started first. Not here: the reports (_reports).
"""

from typing import TYPE_CHECKING

from dkist_processing_core.launcher._task_log import errors_logged
from dkist_processing_core.launcher.assignment import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable

    from dkist_processing_core.launcher._reports import Reports


class ReportsOnDemand:
    """The reports of one attempt; their modules are imported when the first one is due."""

    def __init__(self, assignment: Assignment, began_ns: int) -> None:
        """Store the assignment, and the attempt's start in nanoseconds since 1970."""
        self._assignment = assignment
        self._began_ns = began_ns
        self._opened: Reports | None = None
        self._is_dispatched = False

    def open(self) -> "Reports":
        """Return the reports; the first call opens them and reports the dispatch."""
        if self._opened is None:
            from dkist_processing_core.launcher._reports import Reports  # noqa: PLC0415 - the task is started first

            self._opened = Reports(self._assignment, self._began_ns)
        if not self._is_dispatched:
            self._is_dispatched = True
            self._opened.dispatched()
        return self._opened

    def report(self, action: "Callable[[Reports], object]") -> None:
        """Call `action` with the reports; an error in it is logged and does not change the attempt."""
        with errors_logged():
            action(self.open())

    def close(self, *, is_orphaned: bool, lost_by_task: object) -> int:
        """Deliver the pending reports, if there are any; see `Reports.close`."""
        with errors_logged():
            if self._opened is not None:
                return self._opened.close(is_orphaned=is_orphaned, lost_by_task=lost_by_task)
        return 0
