"""
The bus of a simulation: a history decides what reaches it and when, each time that the consumer asks for a message.

Not here: the history (world), and a bus for tests without one (in_memory_bus).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Self

from msgspec import structs

from dkist_processing_core.bus.interface import ArchiveEnd, Offset
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import Message, to_message, topic_matches
from dkist_processing_core.testing.in_memory_bus import InMemoryBus
from dkist_processing_core.testing.in_memory_receivers import DeadLetter
from dkist_processing_core.testing.simulation.steps import Steps

_MOST_AT_ONCE = 8


@dataclass(slots=True)
class Queue:
    """The queue of a name: what was not delivered, and what was delivered and not acknowledged."""

    patterns: tuple[str, ...]
    ready: deque[Message] = field(default_factory=deque)
    unsettled: list[Message] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def offer(self, message: Message) -> None:
        """Add a message if a pattern takes it."""
        if any(topic_matches(pattern, message.routing_key) for pattern in self.patterns):
            self.ready.append(message)

    def recover(self) -> None:
        """Put unacknowledged messages back, in front."""
        self.ready.extendleft(reversed(self.unsettled))
        self.unsettled.clear()


class SimulatedBus(InMemoryBus):
    """A bus for one consumer; names have queues, as on a broker, and everything is in the archive."""

    where = "the simulated bus"

    def __init__(self, clock: Callable[[], float], advance: Callable[[], bool], random: Random) -> None:
        """
        Start without messages.

        Args:
            clock: Gives the time at which a message reaches the bus.
            advance: Lets the next action of the history happen; returns False if there is none.
            random: Decides how many messages are received at once.
        """
        super().__init__(clock=clock)
        self.advance = advance
        self.random = random
        self.steps = Steps()
        self.may_drop = False
        """Whether a queue may drop messages, so that a consumer compares its inbox with the archive."""
        self.has_dropped = False
        """Whether a queue has dropped a message in the present process."""
        self.queues: dict[str, Queue] = {}

    def deliver(self, event: Event, *, is_dropped: bool = False) -> None:
        """Put an event into the archive, and into the queues unless they drop it."""
        message = to_message(event, self.event_exchange)
        self.publish_raw(message)
        self.has_dropped |= is_dropped
        for queue in () if is_dropped else self.queues.values():
            queue.offer(message)

    def end_process(self) -> None:
        """Recover what the process had received and not acknowledged."""
        for queue in self.queues.values():
            queue.recover()

    def subscribe(
        self,
        patterns: Iterable[str],
        *,
        name: str | None = None,
        replay: bool | datetime | Offset = False,
        in_batches: bool = False,
        former: Iterable[str] = (),  # noqa: ARG002 - a queue has the last patterns
        only_watches: bool = False,  # noqa: ARG002 - no display uses it
    ) -> Any:
        """Return a receiver: of the queue of a name, or of the archive."""
        self.steps.take("subscribe")
        wanted = tuple(patterns)
        if name is None:
            return ArchiveReceiver(self, wanted, replay=replay, is_live=not in_batches)
        queue = self.queues.setdefault(name, Queue(wanted))
        queue.patterns = wanted
        queue.recover()
        return QueueReceiver(self, queue, in_batches=in_batches)

    def archive_end(self, name: str, *, after: int | None = None) -> ArchiveEnd | None:  # type: ignore[override]
        """Return the end of the archive, and the number of messages that the queue of a name holds."""
        if not self.may_drop:
            return None
        self.steps.take("archive_end")
        queue = self.queues.get(name)
        return ArchiveEnd(len(self.messages) - 1, 0 if queue is None else len(queue.ready), after)

    def dead_letters(self, name: str) -> list[DeadLetter]:
        """Return the messages that the subscription of a name could not use."""
        return list(self.queues[name].dead) if name in self.queues else []


class _Receiver(ABC):
    """What both receivers have in common."""

    missed = 0
    is_connected = True
    connections = 1

    def __init__(self, bus: SimulatedBus) -> None:
        self.bus = bus
        self.steps = bus.steps
        self._is_closed = False

    def backlog(self) -> int | None:
        """Return None: no history measures it."""
        return None

    def has_caught_up(self, _: float) -> bool:
        """Return True: nothing is on its way."""
        return True

    @abstractmethod
    def _next(self) -> "SimulatedMessage | None":
        """Return a message that is there; None without one."""

    def receive(self, timeout: float) -> "SimulatedMessage | None":  # noqa: ARG002 - no time passes
        """
        Return the next message, as the history has it.

        Raises:
            StopIteration: The history has ended. The loop of a subscription ends then, as after its timeout.
        """
        self.steps.take("receive")
        while True:
            message = None if self._is_closed else self._next()
            if message is not None:
                return message
            if self._is_closed or not self.bus.advance():
                raise StopIteration

    def receive_batch(self, most: int, timeout: float) -> "list[SimulatedMessage]":  # noqa: ARG002 - as above
        """Return what is there, and what further actions of the history add."""
        self.steps.take("receive")
        if self._is_closed:
            return []
        size = min(most, self.bus.random.randint(1, _MOST_AT_ONCE))
        batch = self._all(size)
        while len(batch) < size and self.bus.advance():
            batch += self._all(size - len(batch))
        return batch

    def _all(self, most: int) -> "list[SimulatedMessage]":
        batch: list[SimulatedMessage] = []
        while len(batch) < most and (message := self._next()) is not None:
            batch.append(message)
        return batch

    def settle(self, message: Message, reason: str | None, *, with_earlier: bool) -> None:
        """Settle a message."""

    def close(self) -> None:
        """End the subscription."""
        self._is_closed = True

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the subscription."""
        self.close()


class QueueReceiver(_Receiver):
    """A receiver of the queue of a name."""

    def __init__(self, bus: SimulatedBus, queue: Queue, *, in_batches: bool) -> None:
        """Start with what the queue holds."""
        super().__init__(bus)
        self._queue = queue
        self._in_batches = in_batches

    def backlog(self) -> int | None:
        """Return how many messages the queue holds."""
        return len(self._queue.ready)

    def _next(self) -> "SimulatedMessage | None":
        if not self._queue.ready:
            return None
        message = self._queue.ready.popleft()
        self._queue.unsettled.append(message)
        return SimulatedMessage(message, self)

    def receive(self, timeout: float) -> "SimulatedMessage | None":
        """Return the next message, as the history has it; in batches None at its end."""
        try:
            return super().receive(timeout)
        except StopIteration:
            if self._in_batches:
                return None
            raise

    def settle(self, message: Message, reason: str | None, *, with_earlier: bool) -> None:
        """Remove a message, and with `with_earlier` those delivered before it."""
        self.steps.take("acknowledge" if reason is None else "dead-letter")
        at = next((at for at, each in enumerate(self._queue.unsettled) if each is message), None)
        if at is None or self._is_closed:
            return
        if reason is not None:
            self._queue.dead.append(DeadLetter(message, reason))
        del self._queue.unsettled[0 if with_earlier else at : at + 1]

    def close(self) -> None:
        """End the subscription: what was not acknowledged is delivered again."""
        if not self._is_closed and not self.steps.is_dead:
            self._queue.recover()
        super().close()


class ArchiveReceiver(_Receiver):
    """A receiver without a name."""

    def __init__(
        self, bus: SimulatedBus, patterns: tuple[str, ...], *, replay: bool | datetime | Offset, is_live: bool
    ) -> None:
        """Start at the end of the archive, or where the replay begins."""
        super().__init__(bus)
        self._in_archive = InMemoryBus.subscribe(bus, patterns, replay=replay)
        self._is_live = is_live

    def _next(self) -> "SimulatedMessage | None":
        received = self._in_archive.receive(0.0)
        if received is None:
            return None
        properties = received.message.properties
        # As on a broker: the position of a message in the archive, from 0.
        headers = {**properties.headers, "x-stream-offset": received.entry.seq - 1}
        message = structs.replace(received.message, properties=structs.replace(properties, headers=headers))
        return SimulatedMessage(message, self, is_new=received.is_new)

    def receive(self, timeout: float) -> "SimulatedMessage | None":
        """Return the next message; None at the end of the archive for a reader that only catches up."""
        if self._is_live:
            return super().receive(timeout)
        self.steps.take("receive")
        return self._next()

    def receive_batch(self, most: int, timeout: float) -> "list[SimulatedMessage]":
        """Return what is there."""
        if self._is_live:
            return super().receive_batch(most, timeout)
        self.steps.take("receive")
        return self._all(most)


@dataclass(eq=False, slots=True)
class SimulatedMessage:
    """A message that was delivered."""

    message: Message
    receiver: _Receiver
    is_new: bool = True

    @property
    def position(self) -> int | None:
        """The place in the archive."""
        return self.message.properties.headers.get("x-stream-offset")

    def acknowledge(self, wait: float = 0.0, *, with_earlier: bool = False) -> None:  # noqa: ARG002 - no time passes
        """Acknowledge it."""
        self.receiver.settle(self.message, None, with_earlier=with_earlier)

    def dead_letter(self, reason: str) -> None:
        """Dead-letter it."""
        self.receiver.settle(self.message, reason, with_earlier=False)
