"""
`dkist-core events`: show new and past events of the bus.

Not here: the formatting of an event as a line (draw.lines).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import typer
from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.events.runs import events_of_run, have_several_runs
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.lost_runs import end_of, lost_runs
from dkist_processing_core.events import EVENT_CLASSES, Event, encode
from dkist_processing_core.identity.short_ids import names_run
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import interrupt_ends, write_json_line


@dataclass(frozen=True, slots=True)
class Filters:
    """The choice of the events to show, and their form."""

    types: Sequence[str] = ()
    workflow: str | None = None
    task: str | None = None
    run: str | None = None
    """The run as a person names it: by its whole id, or by an end of it."""
    all_reports: bool = False
    as_json: bool = False


def tail(filters: Filters, *, name: str | None, replay: bool) -> None:
    """Print events as they occur, until Ctrl-C."""
    settings = read_settings()
    show = _shower(as_json=filters.as_json, dated=replay or name is not None, several_runs=filters.run is None)
    with (
        interrupt_ends(),
        subscribe(
            *filters.types,
            workflow=filters.workflow,
            task=filters.task,
            name=name,
            replay=replay,
            every_report=filters.all_reports,
            settings=settings,
        ) as events,
    ):
        _print_remark(f"following {open_bus(settings).where}; press Ctrl-C to end")
        for event in events if filters.run is None else events_of_run(events, filters.run, most_held=0):
            show(event)
            event.ack()


def show_list(filters: Filters, *, since: timedelta | None) -> None:
    """Print the events that the bus still has."""
    settings = read_settings()
    now = datetime.now(UTC)
    moments = _Moments()
    events: Iterator[Event] = replayed(
        settings,
        *filters.types,
        workflow=filters.workflow,
        task=filters.task,
        every_report=filters.all_reports,
        since=None if since is None else _start_of(since, now),
    )
    if since is not None:
        events = (event for event in events if now - moments.latest(event, now) <= since)
    if filters.run is not None:
        events = events_of_run(events, filters.run)
    several_runs, events = (False, events) if filters.as_json else have_several_runs(events)
    show = _shower(as_json=filters.as_json, dated=True, several_runs=several_runs)
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - the number is needed after the loop
        show(event)
    bus = open_bus(settings)
    if not count:
        _print_remark(f"no such event on {bus.where}")
    for lost in lost_runs(bus.journal_path):
        if filters.run is None or names_run(filters.run, lost.run.run_id):
            _print_remark(f"run {lost.run.run_id} has no end yet, {end_of(lost).reason}")


class _Moments:
    """The latest time of each run: if a clock is set back during a run, a later event must not count as older."""

    def __init__(self) -> None:
        self._latest: dict[object, datetime] = {}

    def latest(self, event: Event, now: datetime) -> datetime:
        """Return the time of an event, or the latest time of the previous events of its run if that is later."""
        found = max(event.time, self._latest.get(event.run, event.time))
        if found <= now:
            self._latest[event.run] = found
        return found


def _start_of(since: timedelta, now: datetime) -> datetime | None:
    try:
        return now - since
    except OverflowError:
        # The limit is before the start of the calendar: no event is older.
        return None


def checked_types(names: Sequence[str]) -> Sequence[str]:
    """Return a user's names of events; raise an error for a name that no event has."""
    known = event_names()
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"there is no event {name!r}; expected one of {', '.join(known)}")
    return names


def event_names() -> list[str]:
    """Return the names of all events."""
    return [event_class.name for event_class in EVENT_CLASSES]


def _shower(*, as_json: bool, dated: bool, several_runs: bool) -> Callable[[Event], None]:
    if as_json:
        return _write_json
    console = Terminal(highlight=False)
    lines = EventLines(
        dated=dated, with_runs=several_runs, ascii_only=console.options.ascii_only, width=console.columns
    )

    def show(event: Event) -> None:
        for line in lines.lines(event):
            console.print(line, soft_wrap=True)

    return show


def _write_json(event: Event) -> None:
    write_json_line(encode(event))


def _print_remark(text: str) -> None:
    """Print a text to the standard error stream, separate from output that may be piped."""
    Terminal(stderr=True, highlight=False).print(Text.assemble((text, "dim")), soft_wrap=True)
