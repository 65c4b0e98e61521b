"""
`dkist-core events`: show new and past events of the bus.

Not here: the choice of past events (past), and the formatting of an event as a line (draw.lines).
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.events.past import Choice, PastEvents
from dkist_processing_core.cli.events.runs import events_of_run, have_several_runs
from dkist_processing_core.cli.waiting import waiting_remark
from dkist_processing_core.consumer import Selection, subscribe
from dkist_processing_core.events import EVENT_CLASSES, Event, encode
from dkist_processing_core.identity.short_ids import names_run
from dkist_processing_core.journal.run_record import records_beside
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal, print_remark
from dkist_processing_core.text.terminal import interrupt_ends, write_json_line, write_line

ON_A_TERMINAL = 100
"""How many events a list on a terminal has by default."""


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

    def __post_init__(self) -> None:
        """Raise an error of usage for a choice that no event can match."""
        try:
            Selection(tuple(self.types), self.workflow, self.task)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def tail(filters: Filters, *, name: str | None, replay: bool, waits: bool) -> None:
    """Print events as they occur, until Ctrl-C; if `waits`, wait for a broker that cannot be reached at the start."""
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
            connect="wait" if waits else "fail",
            settings=settings,
        ) as events,
    ):
        print_remark(f"following {open_bus(settings).where}; press Ctrl-C to end")
        run = filters.run
        for event in events if run is None else events_of_run(events, run, remark=print_remark, most_held=0):
            show(event)
            event.ack()


def show_list(filters: Filters, *, since: datetime | None, limit: int | None, only_final: bool = False) -> None:
    """Print the events that the bus still has; without a `limit`, the newest on a terminal, and otherwise all."""
    settings = read_settings()
    if limit is None:
        limit = 0 if filters.as_json or not sys.stdout.isatty() else ON_A_TERMINAL
    selection = Selection(tuple(filters.types), filters.workflow, filters.task)
    choice = Choice(selection, filters.all_reports, since, filters.run, limit, only_final)
    past = PastEvents(settings, choice, print_remark)
    events: Iterator[Event] = iter(past)
    if filters.run is not None:
        events = events_of_run(events, filters.run, remark=print_remark)
    several_runs, events = (False, events) if filters.as_json else have_several_runs(events)
    show = _shower(as_json=filters.as_json, dated=True, several_runs=several_runs)
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - the number is needed after the loop
        show(event)
    bus = open_bus(settings)
    if past.unreachable is not None:
        raise past.unreachable
    if not count:
        if filters.run is not None:
            from dkist_processing_core.cli.runs.find import find_run  # noqa: PLC0415 - as below
            from dkist_processing_core.consumer.backwards import all_back  # noqa: PLC0415 - as below

            # If there is no such run, this raises the error that states this.
            find_run(
                lambda takes: all_back(settings, Selection(), takes=takes),
                filters.run,
                where=bus.where,
                workflow=filters.workflow,
            )
        print_remark(f"no such event on {bus.where}")
    if (remark := waiting_remark(settings)) is not None:
        print_remark(remark)
    if any(records_beside(bus.journal_path)):
        _remark_lost_runs(bus.journal_path, filters.run)


def _remark_lost_runs(journal: Path, named: str | None) -> None:
    from dkist_processing_core.delivery.lost_runs import end_of, lost_runs  # noqa: PLC0415 - imports OpenTelemetry

    for lost in lost_runs(journal):
        if named is None or names_run(named, lost.run.run_id):
            print_remark(f"run {lost.run.run_id} has no end yet, {end_of(lost).reason}")


def check_types(names: Sequence[str]) -> None:
    """Raise an error for a user's name of an event that no event has."""
    known = event_names()
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"there is no event {name!r}; expected one of {', '.join(known)}")


def event_names() -> list[str]:
    """Return the names of all events."""
    return [each.name for each in EVENT_CLASSES]


def _shower(*, as_json: bool, dated: bool, several_runs: bool) -> Callable[[Event], None]:
    if as_json:
        return _write_json
    console = Terminal(highlight=False)
    lines = EventLines(
        dated=dated, with_runs=several_runs, ascii_only=console.options.ascii_only, width=console.columns
    )

    def show(event: Event) -> None:
        for line in lines.lines(event):
            if console.color_system is None:
                # Without colours rich adds nothing but its time, which is most of the time of a long list.
                write_line(line.plain)
            else:
                console.print(line, soft_wrap=True)

    return show


def _write_json(event: Event) -> None:
    write_json_line(encode(event))
