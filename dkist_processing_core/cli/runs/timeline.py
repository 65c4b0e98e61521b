"""
`dkist-core timeline`: one run, found among the events that the bus still has.

Not here: finding the run (find), the drawing of a timeline (draw.timeline), and the content of its JSON (runs.as_json).
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.cli.runs.find import find_run
from dkist_processing_core.cli.waiting import only_waiting, waiting_remark
from dkist_processing_core.consumer import Selection
from dkist_processing_core.consumer.backwards import Batch, all_back, undelivered_back
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.events import WorkflowStarted
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.run_record import records_beside
from dkist_processing_core.runs import RunView
from dkist_processing_core.runs.as_json import run_json
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal, print_remark
from dkist_processing_core.text.terminal import write_json


def show_timeline(named: str | None, *, workflow: str | None = None, as_json: bool) -> None:
    """
    Draw a run or write it as JSON; by default the newest run, perhaps of one workflow.

    Raises:
        DKISTProcessingCoreError: There is no such run, or the bus cannot be read. If the broker cannot be reached, the
            run was drawn from the events that wait for it on this host.
    """
    settings = read_settings()
    bus, short_ids = open_bus(settings), ShortIds()
    unreachable: BusUnreachableError | None = None

    def read(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in itertools.chain(_lost(bus.journal_path), batches):
            for event in batch.events:
                short_ids.add(event.run_id)
            yield batch

    def read_bus(takes: Callable[[Message], bool]) -> Iterator[Batch]:
        return read(all_back(settings, Selection(), takes=takes))

    try:
        view = find_run(read_bus, named, where=bus.where, workflow=workflow)
    except BusUnreachableError as error:
        waiting = list(undelivered_back(settings, Selection()))
        unreachable = only_waiting(settings, error, sum(len(batch.events) for batch in waiting))
        if not any(batch.events for batch in waiting):
            raise unreachable from error
        view = find_run(lambda _: read(waiting), named, where=f"this host, and {error}", workflow=workflow)
        # The broker may have the first reports of the run.
        view = replace(view, is_start_known=_has_start(view.run, waiting))
    _show(view, short_ids.of(view.run.run_id), as_json=as_json)
    if unreachable is not None:
        raise unreachable
    if (remark := waiting_remark(settings)) is not None:
        print_remark(remark)


def _has_start(run: Run, batches: Iterable[Batch]) -> bool:
    events = (event for batch in batches for event in batch.events)
    starts = (event for event in events if isinstance(event, WorkflowStarted))
    return any((event.workflow_name, event.run_id) == (run.workflow_name, run.run_id) for event in starts)


def _lost(journal: Path) -> Iterator[Batch]:
    """Yield what a later process will report on each lost run of this host."""
    if any(records_beside(journal)):
        from dkist_processing_core.delivery.lost_runs import (  # noqa: PLC0415 - imports much, and is rarely needed
            end_of,
            failures_of,
            lost_runs,
        )

        for run in lost_runs(journal):
            yield Batch([end_of(run), *failures_of(run)], began=run.started_at)


def _show(view: RunView, short_id: str, *, as_json: bool) -> None:
    if as_json:
        write_json(run_json(view))
        return
    console = Terminal(highlight=False)
    lines = draw_timeline(
        view,
        width=console.columns or console.width,
        now=datetime.now(UTC),
        short_id=short_id,
        ascii_only=console.options.ascii_only,
    )
    for line in lines:
        console.print(line, soft_wrap=True)
