"""
`dkist-core timeline`: one run, found among the events that the bus still has.

Not here: the drawing of a timeline (draw.timeline), and the content of its JSON (cli.runs.as_json).
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.cli.runs.as_json import run_json
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event
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


def show_timeline(run_id: str | None, *, as_json: bool) -> None:
    """Draw a run or write it as JSON; by default the newest run."""
    settings = read_settings()
    view = find_run(replayed(settings, every_report=True), run_id, where=open_bus(settings).where)
    if as_json:
        write_json(run_json(view))
        return
    console = Terminal(highlight=False)
    lines = draw_timeline(view, width=console.width, now=datetime.now(UTC), ascii_only=console.options.ascii_only)
    for line in lines:
        console.print(line, soft_wrap=True)


def find_run(events: Iterable[Event], run_id: str | None, *, where: str) -> RunView:
    """
    Return the state of a run from all reports about it; without a `run_id`, the newest run.

    Raises:
        DKISTProcessingCoreError: The events contain no such run; the message names the newest runs in the events.
    """
    latest = LatestRuns(_KEPT_RUNS if run_id is None else _NAMED_RUNS)
    requested = RunState()
    for event in events:
        latest.fold(event)
        if event.run_id == run_id:
            requested.fold(event)
    if run_id is None and (views := latest.views()):
        return views[-1]
    if run_id is not None and (view := requested.run(run_id)) is not None:
        return view
    if run_id is None:
        msg = f"there is no run yet on {where}"
    else:
        known = ", ".join(view.run.run_id for view in reversed(latest.views())) or "none"
        msg = f"there is no run {run_id!r} on {where}; the latest runs there: {known}"
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
