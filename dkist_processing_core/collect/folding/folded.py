"""
One fold of a run: the rows that are derived from the reports on it, and what its ends add to the totals.

A pure function. Not here: reading the reports and writing the rows (collect.store), and the rows themselves (rows).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core import semconv
from dkist_processing_core.collect.folding.counting import Increment, Marks, counted
from dkist_processing_core.collect.folding.rows import RowsOfRun, rows_of
from dkist_processing_core.collect.folding.signs import Key, Signs, signs_of
from dkist_processing_core.collect.reports.stored import Merging
from dkist_processing_core.metrics.declarations import LAST_EVENT
from dkist_processing_core.runs import ALARMS, Window, run_view


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of a run besides the reports on it."""

    sign_received_at: float | None
    signs: Mapping[Key, Signs]
    """The signs of life of its attempts, of which later reports may have replaced the last ones."""
    marks: Marks
    """What was counted of it."""


@dataclass(frozen=True, slots=True)
class FoldedRun:
    """What a fold of a run writes."""

    rows: RowsOfRun
    derived: dict[str, Any]
    """Further values of the row of the run."""
    increments: list[Increment]
    marks: Marks | None
    """What is counted of it now; None if nothing new is."""


def folded_run(merging: Merging, before: Before, now: float) -> FoldedRun:
    """
    Return what follows from the reports on a run, of which one at least is kept.

    Args:
        merging: The reports.
        before: What is known besides.
        now: The present time, in seconds since 1970.
    """
    received = merging.kept
    reports = [report.event for report in received]
    moment = datetime.fromtimestamp(merging.received_at, UTC)
    view = run_view(reports, received_at=moment)
    signs = signs_of(merging.everything, Window.around(moment), before.signs)
    last_sign = max((at for event, at in received if not isinstance(event, ALARMS)), default=None)
    found = counted(view, received, before.marks, now)
    rows = rows_of(view, reports, moment, signs)
    last_event = Increment(LAST_EVENT, {semconv.PIPELINE_NAME: view.run.workflow_name}, rows.run["last_sign_at"])
    derived = {
        "received_at": merging.received_at,
        "settles_at": found.next_at,
        "sign_received_at": max((at for at in (last_sign, before.sign_received_at) if at), default=None),
    }
    return FoldedRun(rows, derived, [*found.increments, last_event], found.marks if found.is_changed else None)
