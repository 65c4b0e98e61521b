"""
Events as a consumer reads them: subscribe, iterate, acknowledge.

Not here: the state derived from reports (runs), and the delivery by either bus (bus).
"""

import functools
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from dkist_processing_core.bus import Delivery, Receiver, open_bus
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, DEAD_LETTERS_SUFFIX
from dkist_processing_core.errors import BusError, DecodeError, UnknownEventError
from dkist_processing_core.events import EVENT_CLASSES, Event, RecipeRunFailureMessage, TaskEvent, check_size, decode
from dkist_processing_core.journal.message import Message, word
from dkist_processing_core.process.signals import held_back
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings

REMEMBERED_IDS = 100_000
ACK_SECONDS = 2.0
# AMQP's limit for the name of a queue.
_MAX_NAME_BYTES = 255
# The longest delay of the author's signal handler, such as a time limit, during a poll.
_POLL_SECONDS = 0.1
_EPOCH, _LAST = datetime.fromtimestamp(0, UTC), datetime.max.replace(tzinfo=UTC)
# A replay may reach the end of the backlog at any time, and reports it only when it is asked.
_POLL_SECONDS_OF_PAST = 0.05
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a consumer wants; a field that is left out does not restrict them."""

    names: tuple[str, ...] = ()
    workflow: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError for a name that no event has: such a subscription would wait for ever."""
        known = [event_class.name for event_class in EVENT_CLASSES]
        for name in self.names:
            if name not in known:
                msg = f"there is no event {name!r}; expected one of {', '.join(known)}"
                raise ValueError(msg)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topic patterns that match at least the wanted events."""
        workflow = "*" if self.workflow is None else word(self.workflow)
        tail = "#" if self.task is None else word(self.task)
        names = self.names or (("task.*",) if self.task is not None else ("*.*",))
        return tuple(f"{name}.{workflow}.{tail}" for name in names)

    def matches(self, event: Event) -> bool:
        """Return True if an event is wanted; names are compared again, since a routing key holds them shortened."""
        return (
            (not self.names or event.name in self.names)
            and self.workflow in (None, event.workflow_name)
            and (self.task is None or (isinstance(event, TaskEvent) and event.task_name == self.task))
        )


class Subscription:
    """
    An iterator over events that is also a context manager: it receives events from its creation on.

    A request for the next event acknowledges the current one. Leaving the loop leaves the current event unacknowledged,
    so that a named subscription receives it again, unless its `ack()` was called before the subscription ended. A
    subscription ends by `close`, when no reference to it is left, and with the process.
    """

    def __init__(
        self,
        receiver: Receiver,
        selection: Selection,
        *,
        timeout: float | None = None,
        every_report: bool = False,
        replay: bool | datetime = False,
    ) -> None:
        """Take an open receiver; `subscribe` makes one."""
        self._receiver = receiver
        self._selection = selection
        self._timeout = timeout
        self._seen: _Memory | None = None if every_report else _Memory(REMEMBERED_IDS)
        self._in_hand: Delivery | None = None
        # An event that was received but not yet yielded: a handler's exception may come in between.
        self._ready: tuple[Event, Delivery] | None = None
        self._is_closed = False
        self._has_caught_up = not replay
        self._unknown = 0
        self._pid = os.getpid()

    @property
    def has_caught_up(self) -> bool:
        """True if a replay has yielded everything that the bus held when it began: all further events are new."""
        return self._has_caught_up

    @property
    def missed(self) -> int:
        """
        The number of events known to be lost to this name since the subscription was opened, updated at the next read.

        A bus keeps a limited number of events, for a limited time, for a name that does not read them.
        """
        return self._receiver.missed

    @property
    def unknown(self) -> int:
        """The number of skipped events of types that this release does not know, since the subscription began."""
        return self._unknown

    def __iter__(self) -> Iterator[Event]:
        """Return the subscription itself."""
        return self

    def __next__(self) -> Event:
        """
        Acknowledge the current event, wait for the next and return it.

        Raises:
            StopIteration: No event came within the subscription's timeout, or the subscription is closed.
            BusError: The subscription cannot continue, or this process is a fork of the one that it belongs to.
        """
        _refuse_fork_of(self._pid)
        with held_back():
            if self._in_hand is not None:
                self._in_hand.acknowledge()
                self._in_hand = None
        quiet_since = asked_since = time.monotonic()
        while self._ready is None and not self._is_closed:
            with held_back():
                # Asked before receiving: events that existed by then are received at once.
                is_past = not self._receiver.has_caught_up(asked_since)
                patience = _POLL_SECONDS
                if is_past:
                    patience = _POLL_SECONDS_OF_PAST
                elif self._timeout is not None:
                    patience = min(patience, quiet_since + self._timeout - time.monotonic())
                delivery = self._receiver.receive(max(0.0, patience))
                if delivery is None and not is_past:
                    self._has_caught_up = True
                    if patience <= 0:
                        break
                elif delivery is None:
                    quiet_since = time.monotonic()
                else:
                    # Wanted or not: more events may follow it.
                    quiet_since = asked_since = time.monotonic()
                    self._has_caught_up |= delivery.is_new
                    self._ready = self._decoded(delivery)
        if self._ready is None or self._is_closed:
            raise StopIteration
        # Without a call, during which a handler could run.
        event, self._in_hand = self._ready
        self._ready = None
        return event

    def _decoded(self, delivery: Delivery) -> tuple[Event, Delivery] | None:
        """Return the event of a delivery, or settle the delivery if it is undecodable, unwanted, or already known."""
        message = delivery.message
        event = _read(message)
        if isinstance(event, UnknownEventError):
            self._pass_over(event)
            delivery.acknowledge()
            return None
        if isinstance(event, Exception):
            reason = str(event) if isinstance(event, DecodeError) else f"{type(event).__name__}: {event}"
            logger.warning("message %r goes to the dead letters: %s", _name_of(message), reason)
            delivery.dead_letter(reason)
            return None
        if self._selection.matches(event) and (self._seen is None or self._seen.is_new(event.id)):
            acknowledge = functools.partial(_acknowledge, self._pid, delivery)
            return event.with_acknowledgement(acknowledge, datetime.now(UTC)), delivery
        delivery.acknowledge()
        return None

    def _pass_over(self, error: UnknownEventError) -> None:
        if not self._unknown:
            logger.warning("events of types that this release does not know are passed over; the first: %s", error)
        self._unknown += 1

    def close(self) -> None:
        """
        End the subscription; a current event that is not acknowledged is delivered again under the same name.

        In a fork of the process that it belongs to this does nothing.
        """
        if self._pid == os.getpid():
            self._is_closed = True
            with held_back():
                self._receiver.close()

    def __enter__(self) -> Self:
        """Return the subscription itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the subscription."""
        self.close()


def _read(message: Message) -> Event | Exception:
    """Return the event that a message carries, or the exception that explains why there is none."""
    try:
        if message.full_size is not None:
            check_size(message.full_size)
        return decode(message.body, message.properties.content_type, message.properties.headers)
    except Exception as error:  # noqa: BLE001 - a consumer lives on, whatever is wrong with a foreign message
        return error


def _refuse_fork_of(pid: int) -> None:
    if pid != os.getpid():
        msg = (
            f"the subscription belongs to process {pid}, which opened it; found process {os.getpid()}, a fork of it: "
            "call subscribe() in the process that reads"
        )
        raise BusError(msg)


def _acknowledge(pid: int, delivery: Delivery) -> None:
    # Without a reference to the subscription, which ends when only its events are still held.
    _refuse_fork_of(pid)
    with held_back():
        delivery.acknowledge(ACK_SECONDS)


def subscribe(
    *names: str,
    workflow: str | None = None,
    task: str | None = None,
    name: str | None = None,
    replay: bool | datetime = False,
    timeout: float | None = None,
    every_report: bool = False,
    settings: Settings | None = None,
) -> Subscription:
    """
    Subscribe to events, from RabbitMQ or the embedded journal, depending on the settings.

    Args:
        names: the wanted events, as in `subscribe("task.failed", "task.finished")`; all events if none is named.
        workflow: the name of the only wanted workflow.
        task: the name of the only wanted task.
        name: the subscription's own name, under which its position is stored: events that arrive while it is closed
            are delivered later, and unacknowledged events are delivered again. On RabbitMQ it is a queue. A thread has
            one subscription of a name: opening another ends the previous one.
        replay: begin with the oldest event that the bus still has, up to seven days ago, or, for a time, with the first
            event that reached the bus at that time or later; not allowed with a name. A time without a zone is local,
            as everywhere in Python. An event that happened before that time and reached the bus later, for example
            from an outbox, is included. On RabbitMQ, events that reached it in the few seconds before that time may be
            included too.
        timeout: end the iteration when no event came for this many seconds; None waits for ever. The time counts from
            the moment when a replay has read everything that the bus held when it began, so that no replay is cut
            short: with 0, exactly those events are yielded.
        every_report: yield each reporter's report of a fact. Otherwise a fact is yielded once, however many reports
            and repetitions of it there are.
        settings: read from the environment if they are not given.

    Raises:
        ValueError: There is no such event, the subscription cannot have that name, or `replay` is no time.
        ConfigurationError, BusError, JournalError: The settings are wrong, or the bus cannot be reached now. Later
            interruptions are bridged.
    """
    selection = Selection(names, workflow, task)
    replay = _in_utc(replay)
    if name is not None:
        check_name(name, replay=replay)
    with held_back():
        bus = open_bus(settings or read_settings())
        key = (bus.where, name)
        if name is not None and (abandoned := _open.subscriptions.get(key)) is not None:
            # Its loop was left, and a reference to it remains, for example in a notebook's last traceback.
            abandoned.close()
        receiver = bus.subscribe(selection.patterns, name=name, replay=replay)
        subscription = Subscription(receiver, selection, timeout=timeout, every_report=every_report, replay=replay)
        if name is not None:
            _open.subscriptions[key] = subscription
    return subscription


_Replay = bool | datetime


def _in_utc(replay: _Replay) -> _Replay:
    """Return the start of a replay, for either bus; a time without a zone is a local time."""
    if isinstance(replay, bool):
        return replay
    if not isinstance(replay, datetime):
        msg = f"replay is {replay!r}, expected True, False or a datetime"
        raise ValueError(msg)  # noqa: TRY004 - as every other wrong argument
    try:
        # Not `astimezone`: in the hour that a change of clocks skips, its result depends on the release of Python.
        moment = datetime.fromtimestamp(replay.timestamp(), UTC)
    except (OverflowError, ValueError):
        # In UTC the time is outside the calendar.
        moment = _LAST if replay.year > _EPOCH.year else _EPOCH
    # There are no events before RabbitMQ's first time.
    return moment if moment > _EPOCH else True


class _Open(threading.local):
    """The named subscriptions of each thread."""

    def __init__(self) -> None:
        self.subscriptions: weakref.WeakValueDictionary[tuple[str, str | None], Subscription]
        self.subscriptions = weakref.WeakValueDictionary()


_open = _Open()


def check_name(name: str, *, replay: bool | datetime = False) -> None:
    """Raise a ValueError for a name that is invalid on one of the buses: both must accept the same program."""
    expected = None
    if replay:
        expected = "no name: a replay begins at the beginning, and a name where it left off; leave one of them out"
    elif not name or not name.isprintable():
        expected = "one or more printable characters"
    elif len((name + DEAD_LETTERS_SUFFIX).encode()) > _MAX_NAME_BYTES:
        expected = f"at most {_MAX_NAME_BYTES - len(DEAD_LETTERS_SUFFIX)} bytes"
    elif name in (ARCHIVE_QUEUE, RecipeRunFailureMessage.queue):
        expected = "another name: this queue has its own use"
    elif name.startswith("amq.") or name.endswith(DEAD_LETTERS_SUFFIX):
        expected = f"a name that does not begin with 'amq.' or end with '{DEAD_LETTERS_SUFFIX}', which are taken"
    if expected is not None:
        msg = f"the subscription's name is {name!r}, expected {expected}"
        raise ValueError(msg)


class _Memory:
    """The most recent ids, to recognise a repeated fact."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def is_new(self, identifier: str) -> bool:
        """Return True if an id was not seen before, and remember it."""
        if identifier in self._ids:
            self._ids.move_to_end(identifier)
            return False
        self._ids[identifier] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return True


def _name_of(message: Message) -> str:
    return message.properties.message_id or message.routing_key
