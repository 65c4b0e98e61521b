"""
What there is to know about the bus at one moment: its archive, consumers and their lag, outboxes, dead letters.

Not here: reading it again and again (bus_status), and changing dead letters (letters).
"""

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from dkist_processing_core.bus import Bus
from dkist_processing_core.bus.amqp.errors import is_about_permissions
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.bus.archived import Archived, archived_by_broker, archived_in_journal
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, DEAD_LETTERS_SUFFIX
from dkist_processing_core.dead_letters import Group, open_places
from dkist_processing_core.dead_letters.in_queue import QueueLetters
from dkist_processing_core.errors import BusRefusedError, InboxMissingError
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.counts import Counts, count, oldest_due
from dkist_processing_core.inbox.letters import DeadLetters
from dkist_processing_core.journal import Journal
from dkist_processing_core.outbox import OutboxState, outboxes
from dkist_processing_core.settings.interface import Settings


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
class OfBus:
    """What the broker, or the embedded journal, has."""

    at: datetime
    archive: Archived | None
    """None if there is no message, or if it must not be read."""
    queues: dict[str, Queue]
    """By the names of the consumers."""
    groups: list[Group]
    """The groups of dead letters that the broker keeps."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """The rows of one consumer in the inbox."""

    counts: Counts
    lag_seconds: float
    """The time since the oldest message was received that is due and not handled; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class OfHost:
    """What this host has, also while the broker is away."""

    at: datetime
    outboxes: list[OutboxState]
    inboxes: dict[str, Inbox]
    """By the names of the consumers."""
    groups: list[Group]
    """The groups of dead letters in the inbox and the embedded journal."""


def of_host(settings: Settings, now: datetime) -> OfHost:
    """
    Return what this host has.

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


def of_broker(settings: Settings, link: AmqpLink, names: Sequence[str], before: OfBus | None, now: datetime) -> OfBus:
    """
    Return what a broker has.

    Args:
        settings: The settings of this process.
        link: The connection to the broker.
        names: The names of the consumers, which a broker does not list.
        before: What the broker had before: its dead letters are read again only if their number is another one.
        now: The time.

    Raises:
        BusError: The broker cannot be used.
    """
    queues, groups = {}, []
    for name in names:
        load, dead = link.queue_load(name), link.queue_load(name + DEAD_LETTERS_SUFFIX)
        if load is None and dead is None:
            continue
        waiting, readers = (0, 0) if load is None else load
        queues[name] = Queue(waiting, readers, 0 if dead is None else dead.messages)
        if before is not None and name in before.queues and before.queues[name].dead == queues[name].dead:
            groups += [group for group in before.groups if group.consumer == name]
        elif queues[name].dead:
            groups += QueueLetters(settings, name).groups(archived=False)
    archive = None
    try:
        if link.queue_load(ARCHIVE_QUEUE) is not None:
            archive = archived_by_broker(link)
    except BusRefusedError as error:
        # A broker that shuts down refuses as well.
        if not is_about_permissions(error):
            raise
    return OfBus(now, archive, queues, groups)


def of_journal(bus: Bus, journal: Journal, now: datetime) -> OfBus:
    """Return what an embedded journal has."""
    last = journal.last()
    rows = journal.rows("SELECT name, position, used FROM subscription ORDER BY name")
    queues = {name: Queue(max(0, last - position), used_at=used) for name, position, used in rows}
    return OfBus(now, archived_in_journal(journal, bus.event_exchange), queues, [])
