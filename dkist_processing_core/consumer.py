"""
Events as a consumer reads them: subscribe, iterate, acknowledge.

Not here: what the reports add up to (runs), and how either bus delivers (bus).
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from dkist_processing_core.bus import Delivery, Message, Receiver, open_bus, word
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import EVENT_CLASSES, Event, TaskEvent, decode

REMEMBERED_IDS = 100_000
_POLL_SECONDS = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events a consumer wants; what is left out is not restricted."""

    names: tuple[str, ...] = ()
    workflow: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Refuse a name that no event has: such a subscription would wait for ever."""
        known = [event_class.name for event_class in EVENT_CLASSES]
        for name in self.names:
            if name not in known:
                msg = f"there is no event {name!r}; expected one of {', '.join(known)}"
                raise ValueError(msg)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topic patterns that match at least what is wanted."""
        workflow = "*" if self.workflow is None else word(self.workflow)
        tail = "#" if self.task is None else word(self.task)
        names = self.names or (("task.*",) if self.task is not None else ("*.*",))
        return tuple(f"{name}.{workflow}.{tail}" for name in names)

    def matches(self, event: Event) -> bool:
        """Say whether an event is wanted: names are looked at again, since a routing key holds them shortened."""
        return (
            (not self.names or event.name in self.names)
            and self.workflow in (None, event.workflow_name)
            and (self.task is None or (isinstance(event, TaskEvent) and event.task_name == self.task))
        )


class Subscription:
    """
    An iterator over events that is also a context manager: it receives from the moment that it is made.

    The event in hand is acknowledged when the next is asked for. Leaving the loop leaves it unacknowledged, so that a
    named subscription gets it again, unless its `ack()` was called.
    """

    def __init__(
        self, receiver: Receiver, selection: Selection, *, timeout: float | None = None, every_report: bool = False
    ) -> None:
        """Take an open receiver; `subscribe` makes one."""
        self._receiver = receiver
        self._selection = selection
        self._timeout = timeout
        self._seen: _Memory | None = None if every_report else _Memory(REMEMBERED_IDS)
        self._in_hand: Delivery | None = None

    def __iter__(self) -> Iterator[Event]:
        """Return the subscription itself."""
        return self

    def __next__(self) -> Event:
        """
        Acknowledge the event in hand and wait for the next.

        Raises
        ------
        StopIteration
            where none came within the subscription's timeout.
        BusRefusedError
            where the bus will not have this subscription any more.

        """
        if self._in_hand is not None:
            self._in_hand.acknowledge()
            self._in_hand = None
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            remaining = _POLL_SECONDS if deadline is None else deadline - time.monotonic()
            delivery = self._receiver.receive(max(0.0, min(_POLL_SECONDS, remaining)))
            if delivery is None:
                if deadline is not None and time.monotonic() >= deadline:
                    raise StopIteration
                continue
            event = self._decoded(delivery)
            if event is not None:
                self._in_hand = delivery
                return event.with_acknowledgement(delivery.acknowledge)

    def _decoded(self, delivery: Delivery) -> Event | None:
        """Return what a delivery carries, or settle it: undecodable, unwanted, or known already."""
        message = delivery.message
        try:
            event = decode(message.body, message.properties.content_type, message.properties.headers)
        except DecodeError as error:
            logger.warning("message %r goes to the dead letters: %s", _name_of(message), error)
            delivery.bury(str(error))
            return None
        if self._selection.matches(event) and (self._seen is None or self._seen.is_new(event.id)):
            return event
        delivery.acknowledge()
        return None

    def close(self) -> None:
        """End the subscription; an event that is in hand and not acknowledged comes again under the same name."""
        self._receiver.close()

    def __enter__(self) -> Self:
        """Return the subscription itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the subscription."""
        self.close()


def subscribe(
    *names: str,
    workflow: str | None = None,
    task: str | None = None,
    name: str | None = None,
    replay: bool = False,
    timeout: float | None = None,
    every_report: bool = False,
    settings: DKISTProcessingCoreConfiguration | None = None,
) -> Subscription:
    """
    Subscribe to events, from RabbitMQ or the embedded journal as the settings say.

    Args:
        names: the events wanted, as in `subscribe("task.failed", "task.finished")`; all of them where none is named.
        workflow: the name of the one workflow wanted.
        task: the name of the one task wanted.
        name: the subscription's own name, under which its place is remembered: what happens while nobody listens
            is delivered later, and what was not acknowledged is delivered again. On RabbitMQ it is a queue.
        replay: begin with the oldest event that the bus still has, up to seven days ago.
        timeout: end the iteration when no event came for this many seconds; None waits for ever.
        every_report: yield what each reporter says of one fact. Otherwise a fact is yielded once, however many
            reports and repetitions of it there are.
        settings: read from the environment where they are not given.

    Raises
    ------
    ConfigurationError, BusError, JournalError
        where the settings are wrong, or the bus cannot be reached now. Later interruptions are bridged.

    """
    selection = Selection(names, workflow, task)
    bus = open_bus(settings or DKISTProcessingCoreConfiguration.read())
    receiver = bus.subscribe(selection.patterns, name=name, replay=replay)
    return Subscription(receiver, selection, timeout=timeout, every_report=every_report)


class _Memory:
    """The last few ids, to know a fact again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def is_new(self, identifier: str) -> bool:
        """Say whether an id was not seen before, and remember it."""
        if identifier in self._ids:
            self._ids.move_to_end(identifier)
            return False
        self._ids[identifier] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return True


def _name_of(message: Message) -> str:
    return message.properties.message_id or message.routing_key
