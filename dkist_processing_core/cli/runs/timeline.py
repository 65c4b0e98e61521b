"""
`dkist-core timeline`: one run, found among the events that the bus still has.

Not here: the drawing of a timeline (draw.timeline), and the content of its JSON (cli.runs.as_json).
"""

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.cli.runs.as_json import run_json
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.lost_runs import end_of, lost_runs
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event
from dkist_processing_core.identity.short_ids import ShortIds, named_run, names_run
from dkist_processing_core.runs import RunState, RunView, plausible_time
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

if TYPE_CHECKING:
    from dkist_processing_core.identity import Run

_KEPT_RUNS = 20
_NAMED_RUNS = 5
# A run without a plausible time is sorted as the oldest.
_NEVER = datetime.min.replace(tzinfo=UTC)


def show_timeline(named: str | None, *, as_json: bool) -> None:
    """Draw a run or write it as JSON; by default the newest run."""
    settings = read_settings()
    bus, short_ids = open_bus(settings), ShortIds()

    def events() -> Iterator[Event]:
        lost = (end_of(run) for run in lost_runs(bus.journal_path))
        for event in itertools.chain(replayed(settings, every_report=True), lost):
            short_ids.add(event.run_id)
            yield event

    view = find_run(events(), named, where=bus.where)
    if as_json:
        write_json(run_json(view))
        return
    console = Terminal(highlight=False)
    lines = draw_timeline(
        view,
        width=console.columns or console.width,
        now=datetime.now(UTC),
        short_id=short_ids.of(view.run.run_id),
        ascii_only=console.options.ascii_only,
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def find_run(events: Iterable[Event], named: str | None, *, where: str) -> RunView:
    """
    Return the state of the run that a person's text names, from all reports about it; without a text, the newest run.

    Raises:
        DKISTProcessingCoreError: The events contain no such run, and the message names the newest runs in the events;
            or the text names several runs.
    """
    latest = LatestRuns(_KEPT_RUNS if named is None else _NAMED_RUNS)
    possible = RunState()
    for event in events:
        latest.fold(event)
        if named is not None and names_run(named, event.run_id):
            possible.fold(event)
    if named is None:
        if views := latest.views():
            return views[-1]
        msg = f"there is no run yet on {where}"
        raise DKISTProcessingCoreError(msg)
    run_id = named_run(named, (view.run.run_id for view in possible.runs))
    if run_id is not None and (view := possible.run(run_id)) is not None:
        return view
    newest = [view.run.run_id for view in reversed(latest.views())]
    short_ids = ShortIds(newest)
    known = ", ".join(map(short_ids.of, newest)) or "none"
    msg = f"there is no run {named!r} on {where}; the latest runs there: {known}"
    raise DKISTProcessingCoreError(msg)


class LatestRuns:
    """The states of the newest runs only: an archive of a week has more reports than should be held in memory."""

    def __init__(self, size: int) -> None:
        """Keep at most `size` runs."""
        self._size = size
        self._states: dict[Run, RunState] = {}
        self._began: dict[Run, datetime | None] = {}

    def fold(self, event: Event) -> None:
        """Add a report to the state of its run, unless the run was dropped as too old."""
        run = event.run
        is_known = run in self._began
        if is_known and run not in self._states:
            return
        known, reported = self._began.get(run), plausible_time(event)
        self._began[run] = min((moment for moment in (known, reported) if moment is not None), default=None)
        self._states.setdefault(run, RunState()).fold(event)
        if not is_known and len(self._states) > self._size:
            del self._states[min(self._states, key=lambda each: self._began[each] or _NEVER)]

    def views(self) -> list[RunView]:
        """Return the runs, oldest first."""
        views = [view for state in self._states.values() for view in state.runs]
        return sorted(views, key=lambda view: (view.started_at or self._began[view.run] or _NEVER, view.run.run_id))
