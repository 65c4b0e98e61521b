"""
The past events that `dkist-core events list` shows: all that the bus has, the newest, or those that wait on this host.

Not here: reading them from the bus (consumer), and printing them (show).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from dkist_processing_core.cli.waiting import only_waiting
from dkist_processing_core.consumer import Selection
from dkist_processing_core.consumer.backwards import all_back, in_order, may_be_of, undelivered_back, waiting_here
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.events import Event, TaskFailed
from dkist_processing_core.identity.short_ids import names_run
from dkist_processing_core.settings.interface import Settings


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice among the past events."""

    selection: Selection
    every_report: bool = False
    since: datetime | None = None
    run: str | None = None
    """The run as a person names it; several runs may have the name."""
    limit: int = 0
    """How many of the newest events; 0 for all."""
    only_final: bool = False
    """Whether failed attempts that another attempt follows are left out."""


class PastEvents:
    """The chosen events, oldest first. If the broker cannot be reached, those that wait for it on this host."""

    def __init__(self, settings: Settings, choice: Choice, remark: Callable[[str], None]) -> None:
        """Store the choice; `remark` is called with a text about events that are left out."""
        self._settings = settings
        self._choice = choice
        self._remark = remark
        self.unreachable: BusUnreachableError | None = None
        """The reason why only events of this host were yielded, if that is so."""

    def __iter__(self) -> Iterator[Event]:
        """Yield the events."""
        settings, choice, now = self._settings, self._choice, datetime.now(UTC)
        count = 0
        try:
            events = _newest(settings, choice, now, self._remark) if choice.limit else _all(settings, choice, now)
            for event in events:
                count += 1
                yield event
        except BusUnreachableError as error:
            if count:
                raise
            waiting = _chosen(in_order(undelivered_back(settings, choice.selection)), choice, now)
            self.unreachable = only_waiting(settings, error, len(waiting))
            yield from waiting[-choice.limit :]


def _all(settings: Settings, choice: Choice, now: datetime) -> Iterator[Event]:
    """Yield the chosen events while they are read, then those that wait on this host for the broker."""
    is_chosen = _filter(choice, now)
    selection = choice.selection
    # They are read first: one that is delivered in between is not left out.
    waiting = waiting_here(settings, selection)
    waiting_ids, delivered = {event.id for event in waiting}, set[str]()
    for event in replayed(
        settings,
        *selection.names,
        workflow=selection.workflow,
        task=selection.task,
        every_report=choice.every_report,
        since=choice.since,
    ):
        if event.id in waiting_ids:
            delivered.add(event.id)
        if is_chosen(event):
            yield event
    if not choice.every_report:
        waiting = list({event.id: event for event in reversed(waiting) if event.id not in delivered}.values())[::-1]
    yield from filter(is_chosen, waiting)


def _newest(settings: Settings, choice: Choice, now: datetime, remark: Callable[[str], None]) -> list[Event]:
    """Return the newest of the chosen events, which are read from the end of the bus, and of those that wait for it."""
    batches = all_back(
        settings,
        choice.selection,
        since=choice.since,
        takes=lambda message: may_be_of(message, lambda run_id: _is_of(choice.run, run_id)),
    )
    read: list[Event] = []
    for batch in batches:
        read = [event for event in batch.events if _is_of(choice.run, event.run_id)] + read
        chosen = _chosen(read, choice, now)
        # Only one more chosen event, and not just any older batch, shows that some are left out.
        if len(chosen) > choice.limit:
            remark(f"the newest {choice.limit}; --limit 0 shows older events as well")
            return chosen[-choice.limit :]
    return _chosen(read, choice, now)


def _chosen(events: Iterable[Event], choice: Choice, now: datetime) -> list[Event]:
    """Return the chosen events among these; of each occurrence the first report, unless every report is requested."""
    chosen = filter(_filter(choice, now), events)
    if choice.every_report:
        return list(chosen)
    first: dict[str, Event] = {}
    for event in chosen:
        first.setdefault(event.id, event)
    return list(first.values())


def _filter(choice: Choice, now: datetime) -> Callable[[Event], bool]:
    moments = _Moments()

    def is_chosen(event: Event) -> bool:
        is_young = choice.since is None or moments.latest(event, now) >= choice.since
        is_followed = choice.only_final and isinstance(event, TaskFailed) and event.final is False
        return is_young and not is_followed and _is_of(choice.run, event.run_id)

    return is_chosen


def _is_of(named: str | None, run_id: str) -> bool:
    return named is None or names_run(named, run_id)


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
