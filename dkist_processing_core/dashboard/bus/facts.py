"""
The facts about the bus at one moment: its archive, consumers and their lag, outboxes, dead letters.

Not here: reading it again and again (bus.status), and changing dead letters (letters).
"""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from dkist_processing_core.bus import Bus
from dkist_processing_core.bus.amqp.errors import is_about_permissions
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.bus.archived import Archived, archived_by_broker, archived_in_journal
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, DEAD_LETTERS_SUFFIX
from dkist_processing_core.dashboard.bus.letters import MOST_OF_QUEUE
from dkist_processing_core.dead_letters import Group, open_places
from dkist_processing_core.dead_letters.in_queue import QueueLetters
from dkist_processing_core.errors import BusError, BusRefusedError, InboxMissingError
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.counts import Counts, count, oldest_due
from dkist_processing_core.inbox.letters import DeadLetters
from dkist_processing_core.journal import Journal
from dkist_processing_core.outbox import OutboxState, outboxes
from dkist_processing_core.settings.interface import Settings

_READ_AGAIN_PER_SECOND = 100
_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Queue:
    """What the bus has for one consumer."""

    waiting: int
    """The number of messages that were not delivered to it."""
    readers: int | None = None
    """The number of processes that receive; None if the bus does not count them."""
    dead: int = 0
    """The number of messages that it could not use, and that the broker keeps."""
    used_at: float | None = None
    """When the embedded journal was last read by this name, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class KeptLetters:
    """The dead letters of one consumer as they were read last."""

    at: datetime
    count: int
    groups: list[Group]
    problem: str | None = None
    """Why they could not be read since."""

    @property
    def left_out(self) -> int:
        """The number of letters that are in no group, since they were not read."""
        return max(0, self.count - sum(group.count for group in self.groups))

    def are_recent(self, count: int, now: datetime) -> bool:
        """Return True if they need not be read again while there are so many."""
        if self.problem is None and self.count == count:
            return True
        # Reading takes the longer the more a queue holds.
        return (now - self.at).total_seconds() < min(count, MOST_OF_QUEUE) / _READ_AGAIN_PER_SECOND


@dataclass(frozen=True, slots=True)
class OfBus:
    """What the broker, or the embedded journal, has."""

    at: datetime
    archive: Archived | None
    """None if there is no message, or if it must not be read."""
    queues: dict[str, Queue]
    """By the names of the consumers."""
    letters: Mapping[str, KeptLetters]
    """The dead letters that the broker keeps, by the names of the consumers."""

    @property
    def groups(self) -> list[Group]:
        """Their groups."""
        return [group for letters in self.letters.values() for group in letters.groups]

    @property
    def problem(self) -> str | None:
        """Why some of these groups are older than the rest."""
        return next((letters.problem for letters in self.letters.values() if letters.problem is not None), None)


@dataclass(frozen=True, slots=True)
class Inbox:
    """The rows of one consumer in the inbox."""

    counts: Counts
    lag_seconds: float
    """The time since the oldest message was received that is due and not handled; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class OfHost:
    """The outboxes, inboxes and dead letters of this host, which are known also while the broker is away."""

    at: datetime
    outboxes: list[OutboxState]
    inboxes: dict[str, Inbox]
    """By the names of the consumers."""
    groups: list[Group]
    """The groups of dead letters in the inbox and the embedded journal."""


def of_host(settings: Settings, now: datetime) -> OfHost:
    """
    Return the outboxes, inboxes and dead letters of this host.

    Raises:
        DKISTProcessingCoreError: A journal or the inbox exists and cannot be read.
    """
    inboxes: dict[str, Inbox] = {}
    with suppress(InboxMissingError), closing(Database.open_existing(None, settings)) as database:
        names = DeadLetters(database).consumers()
        with database.reading() as connection:
            inboxes = {name: _inbox(connection, name, now) for name in names}
    with open_places(settings, (), None) as opened:
        local = [place for place in opened.places if not isinstance(place, QueueLetters)]
        groups = [group for place in local for group in place.groups(archived=False)]
    return OfHost(now, outboxes(settings), inboxes, groups)


def _inbox(connection: Connection, name: str, now: datetime) -> Inbox:
    oldest = oldest_due(connection, name, now.timestamp())
    lag = 0.0 if oldest is None else max(0.0, now.timestamp() - oldest)
    return Inbox(count(connection, name), lag)


def of_broker(
    settings: Settings,
    link: AmqpLink,
    names: Sequence[str],
    before: Mapping[str, KeptLetters],
    now: datetime,
    *,
    is_changed: bool,
) -> OfBus:
    """
    Return the archive, queues and dead letters of a broker.

    Args:
        settings: The settings of this process.
        link: The connection to the broker.
        names: The names of the consumers, which a broker does not list.
        before: The dead letters as they were read before, which are read again only if their number is another one.
        now: The time.
        is_changed: Whether they are read again in any case.

    Raises:
        BusError: The broker cannot be used.
    """
    queues, letters = {}, {}
    for name in names:
        load, dead = link.queue_load(name), link.queue_load(name + DEAD_LETTERS_SUFFIX)
        if load is None and dead is None:
            continue
        waiting, readers = (0, 0) if load is None else load
        queues[name] = Queue(waiting, readers, 0 if dead is None else dead.messages)
        found = before.get(name, KeptLetters(_NEVER, 0, []))
        if queues[name].dead == 0:
            continue
        if is_changed or not found.are_recent(queues[name].dead, now):
            found = _letters(settings, name, queues[name].dead, found, now)
        letters[name] = found
    archive = None
    try:
        if link.queue_load(ARCHIVE_QUEUE) is not None:
            archive = archived_by_broker(link)
    except BusRefusedError as error:
        # A broker that shuts down refuses as well.
        if not is_about_permissions(error):
            raise
    return OfBus(now, archive, queues, letters)


def _letters(settings: Settings, name: str, count: int, before: KeptLetters, now: datetime) -> KeptLetters:
    """Read the dead letters of a consumer; those before remain if another process holds the queue."""
    try:
        return KeptLetters(now, count, QueueLetters(settings, name, most=MOST_OF_QUEUE).groups(archived=False))
    except BusError as error:
        return replace(before, problem=str(error))


def of_journal(bus: Bus, journal: Journal, now: datetime) -> OfBus:
    """Return the archive and the subscriptions of an embedded journal."""
    last = journal.last()
    rows = journal.rows("SELECT name, position, used FROM subscription ORDER BY name")
    queues = {name: Queue(max(0, last - position), used_at=used) for name, position, used in rows}
    return OfBus(now, archived_in_journal(journal, bus.event_exchange), queues, {})
