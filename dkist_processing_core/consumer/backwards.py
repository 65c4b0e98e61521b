"""
Read the events that the bus still has backwards, from the newest on, as far as the caller needs.

Not here: reading them from the oldest on (replay), and the use of the events.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.embedded.backward_reader import BackwardReader
from dkist_processing_core.consumer._passed_over import PassedOver
from dkist_processing_core.consumer._selection import Selection
from dkist_processing_core.consumer._subscription import event_of
from dkist_processing_core.errors import JournalError, UnknownEventError
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import spares_of
from dkist_processing_core.settings.interface import Settings

# A correlation id holds the first 255 bytes of an id; a character at the cut may be left out.
_CUT_BYTES = 250


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that follow each other on the bus, oldest first, in part left out."""

    events: list[Event]
    newest: float | None = None
    """The latest time, in seconds since 1970, of all messages of the batch, with those left out; None if unknown."""
    began: datetime | None = None
    """The start of the run that the events are about, if a reader has derived them: their times are of no use then."""


def events_back(
    settings: Settings,
    selection: Selection,
    *,
    since: datetime | None = None,
    takes: Callable[[Message], bool] = lambda _: True,
) -> Generator[Batch, None, None]:
    """
    Yield all reports that the bus has, the newest batch first.

    Args:
        settings: They name the bus.
        selection: The wanted events.
        since: Only those that reached the bus at this time or later, and perhaps a few from before that.
        takes: Whether a message is decoded at all, which takes most of the time.

    Raises:
        BusError, JournalError: The bus cannot be read.
    """
    yield from _decoded(open_bus(settings).read_back(selection.patterns, since=since), selection, takes)


def all_back(
    settings: Settings,
    selection: Selection,
    *,
    since: datetime | None = None,
    takes: Callable[[Message], bool] = lambda _: True,
) -> Generator[Batch, None, None]:
    """Yield the batches of `events_back`; the first also has the reports that wait on this host for the broker."""
    # They are read first: a report that is delivered in between is yielded twice, instead of never.
    waiting = waiting_here(settings, selection)
    with closing(events_back(settings, selection, since=since, takes=takes)) as batches:
        first = next(batches, Batch([]))
        yield Batch(first.events + waiting, first.newest)
        yield from batches


def waiting_here(settings: Settings, selection: Selection) -> list[Event]:
    """Return the readable reports that wait on this host for the broker of the settings, oldest first."""
    # Without a broker, the journal is the bus. The bus can be read beside a broken outbox.
    with suppress(JournalError):
        if open_bus(settings).is_remote:
            return in_order(undelivered_back(settings, selection))
    return []


def in_order(batches: Iterable[Batch]) -> list[Event]:
    """Return the events of batches of which the newest comes first, oldest first."""
    return [event for batch in reversed(list(batches)) for event in batch.events]


def undelivered_back(settings: Settings, selection: Selection) -> Generator[Batch, None, None]:
    """Yield the reports that wait on this host for the broker of the settings, the newest batch first."""
    bus = open_bus(settings)
    # The spare journals are newer than the outbox, which takes them over.
    for path in (*reversed(spares_of(bus.journal_path)), bus.journal_path):
        reader = BackwardReader(path, bus.event_exchange, selection.patterns)
        yield from _decoded(reader.batches(), selection, lambda _: True)


def may_be_of(message: Message, is_named: Callable[[str], bool]) -> bool:
    """Return False only if a message is of another run: its correlation id, if it has one, is the id of its run."""
    run_id = message.properties.correlation_id
    return run_id is None or is_named(run_id) or len(run_id.encode()) >= _CUT_BYTES


def _decoded(
    batches: Generator[list[Message], None, None], selection: Selection, takes: Callable[[Message], bool]
) -> Generator[Batch, None, None]:
    passed_over = PassedOver(is_named=False)
    try:
        # Some batches come from a connection, which is closed when the caller has read enough.
        with closing(batches):
            for messages in batches:
                events = list(_events(filter(takes, messages), passed_over))
                times = [at for message in messages if (at := message.properties.timestamp) is not None]
                yield Batch([event for event in events if selection.matches(event)], max(times, default=None))
    finally:
        passed_over.report()


def _events(messages: Iterable[Message], passed_over: PassedOver) -> Iterator[Event]:
    received_at = datetime.now(UTC)
    for message in messages:
        event = event_of(message)
        if isinstance(event, Event):
            yield event.with_acknowledgement(_nothing, received_at)
        elif not isinstance(event, UnknownEventError):
            passed_over.add(message, str(event), at_once=False)


def _nothing() -> None:
    """Acknowledge nothing: a reader without a name has no position."""
