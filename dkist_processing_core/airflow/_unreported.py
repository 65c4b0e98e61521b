"""
The unreported failures at the end of a run: tasks that failed for Airflow, without a report or a message about it.

The bus holds the earlier reports, and this host those that it could not deliver yet. If the bus cannot be read in time,
or another host has not delivered its reports yet, too many reports are published rather than too few: a message that
two hosts send has the same id, and the reports of task and launcher outrank those of Airflow. Not here: what is missing
among known reports (run_end), and reading the bus (_bus_reader) and the journal of this host (_pending_reports).
"""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from dkist_processing_core.airflow._bus_reader import reader_since
from dkist_processing_core.airflow._pending_reports import pending_reports
from dkist_processing_core.airflow.run_end import UnreportedFailures, unreported_in
from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.identity import Run

if TYPE_CHECKING:
    from dkist_processing_core.events import Event

_DELIVERY_SECONDS = 2.0


def unreported_failures(run: Run, failed: Sequence[str] | None, *, since: datetime | None) -> UnreportedFailures:
    """
    Return the missing reports about the failed tasks of a run; its reports reach the bus from `since` on.

    If `failed` is None, the failed tasks are those that have begun and of whose success there is no report.
    """
    if failed is not None and not failed:
        return UnreportedFailures()
    pending: list[Event] = []
    # Before the bus: a report that is delivered meanwhile is found there.
    with errors_logged("failures are announced without the reports that wait on this host"):
        pending = pending_reports(run)
    with errors_logged("failures are announced without reading the bus"):
        reader = reader_since(run.workflow_name, since)
        if reader.has_read_backlog():
            found = unreported_in([*pending, *reader.reports], run, failed)
            # Another host may be delivering its reports and its message just now.
            until = time.monotonic() + _DELIVERY_SECONDS
            while (found.without_end or found.unannounced) and time.monotonic() < until and reader.can_wait_longer():
                found = unreported_in([*pending, *reader.reports], run, failed)
            return found
    return unreported_in(pending, run, failed)
