"""
RabbitMQ as a bus: the outbox in front of it, and the thread that owns a consumer's connection.

Not here: AMQP itself (_amqp), nor what is delivered from the outbox (drain).
"""

import contextlib
import copy
import hashlib
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tenacity

from dkist_processing_core import forks
from dkist_processing_core.bus._bus import topic_matches
from dkist_processing_core.bus._journal import BUSY_SECONDS, Journal
from dkist_processing_core.bus._losses import Losses
from dkist_processing_core.bus._mending import open_mended
from dkist_processing_core.bus._message import Message, Properties
from dkist_processing_core.bus._place import open_folder, place
from dkist_processing_core.bus._spare import Spare
from dkist_processing_core.bus.topology import (
    ARCHIVE_QUEUE,
    DEAD_LETTER_EXCHANGE,
    consumer_topology,
    publisher_topology,
)
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import BusError, BusUnreachableError, JournalError
from dkist_processing_core.text import clip

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp import AmqpLink, Received

CONNECT_SECONDS = 10.0
# Few for a queue: one that waits behind them for long counts as not acknowledged in time (`consumer_timeout`). One for
# a quorum queue: it counts each return of a message, also of one that was never handed out, and drops it at a limit.
QUEUE_PREFETCH = {"classic": 20, "quorum": 1}
ARCHIVE_PREFETCH = 100
# By how much the clocks of this host and the broker's may differ.
_CLOCK_MARGIN = timedelta(seconds=5)
# For how long a stream may show nothing before it counts as empty, or as without anything since a time.
_BEGINNING_SECONDS = 1.0
# For how long a replay waits, in the middle of what there is, for a broker that falls silent or went away.
_SILENCE_SECONDS = 30.0
_MAX_REASON_BYTES = 16 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_WAIT_SECONDS = 5.0
_JOIN_SECONDS = 3.0
logger = logging.getLogger(__name__)


class AmqpBus:
    """Publish through an outbox that is drained to the broker, consume from a queue of one's own."""

    is_remote = True

    def __init__(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """Name broker and outbox; nothing is connected or opened yet."""
        service = settings.isb_mesh_service
        self.settings = settings
        self.where = f"RabbitMQ at {service.host}:{service.port}, virtual host {settings.isb_vhost}"
        self.event_exchange = settings.isb_event_exchange
        self.failure_exchange = settings.isb_exchange
        destination = [service.host, str(service.port), settings.isb_vhost, self.event_exchange, self.failure_exchange]
        self._destination = "\n".join(destination)
        digest = hashlib.sha256(self._destination.encode()).hexdigest()[:8]
        self.place = place(settings)
        self.journal_path = self.place.folder / f"outbox-{digest}.db"

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the outbox of this broker."""
        open_folder(self.place)
        return open_mended(self.journal_path, synced=synced, destination=self._destination, patience=patience)

    def with_journal(self, path: Path) -> "AmqpBus":
        """Return this broker with another journal, such as a spare one, as its outbox."""
        other = copy.copy(self)
        other.journal_path = path
        return other

    def open_spare(self) -> Spare:
        """Make a spare journal beside the outbox."""
        open_folder(self.place)
        return Spare.open(self.journal_path)

    def connect(self, timeout: float = CONNECT_SECONDS, *, deadline: float = math.inf) -> "AmqpLink":
        """Connect; past `deadline` (`time.monotonic`) no call of the link waits."""
        return self.load().open(self.settings, timeout, deadline=deadline)

    def load(self) -> "type[AmqpLink]":
        """Import what connects, and return it: a process whose bus is the embedded journal needs no pika."""
        from dkist_processing_core.bus._amqp import AmqpLink  # noqa: PLC0415

        return AmqpLink

    def open_link(self, timeout: float = CONNECT_SECONDS) -> "AmqpLink":
        """Connect, and make what a publisher needs where it is missing."""
        link = self.connect(timeout)
        try:
            link.declare(publisher_topology(self.settings))
        except BaseException:
            link.close()
            raise
        return link

    def restore(self, link: "AmqpLink", *, bindings: bool = True) -> BusError | None:
        """Make what a publisher needs where it is missing, and return why where the broker does not allow it."""
        error = link.restore(publisher_topology(self.settings), bindings=bindings)
        if (lost := self.lost_history(link)) is not None:
            logger.warning("%s", lost)
        return error

    def lost_history(self, link: "AmqpLink") -> str | None:
        """
        Return what was lost where a link has made the archive, and this host has delivered to the broker before.

        It is returned once for each link.
        """
        if ARCHIVE_QUEUE not in link.made or not self.journal_path.exists():
            return None
        link.made.remove(ARCHIVE_QUEUE)
        try:
            with self.open_journal(synced=False) as journal:
                has_delivered = journal.books().confirmed > 0
        except JournalError:
            has_delivered = False
        if not has_delivered:
            return None
        return (
            f"{self.where} had no {ARCHIVE_QUEUE} any more, and it is made again: "
            "no replay yields the events that were delivered before"
        )

    def subscribe(
        self, patterns: Iterable[str], *, name: str | None = None, replay: bool | datetime = False
    ) -> "AmqpReceiver":
        """Receive events: under a name from a queue, which all of that name share, otherwise from the archive."""
        source = _Archive(self, patterns, replay=replay) if name is None else _NamedQueue(self, name, patterns)
        return AmqpReceiver(self, source)


def _carried(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that a dead letter carries on: none where they leave no room for ours in a frame."""
    size = len(json.dumps(dict(headers), default=str))
    return dict(headers) if size <= _MAX_HEADER_BYTES else {"x-dead-headers": f"left out: {size} characters"}


def _make_source(bus: AmqpBus, link: "AmqpLink", kind: str, name: str) -> None:
    """Make what publishers need where the part of it that a receiver reads is missing; it looks at no other."""
    if link.exists(kind, name) is False:
        error = bus.restore(link)
        if error is not None:
            raise error


class _NamedQueue:
    """A durable queue, which holds what was not acknowledged."""

    def __init__(self, bus: AmqpBus, name: str, patterns: Iterable[str]) -> None:
        self.name = name
        self._bus = bus
        self._topology = consumer_topology(bus.settings, name, patterns := tuple(patterns))
        limit = self._topology.queues[0].arguments["x-max-length"]
        self._prefetch = QUEUE_PREFETCH[bus.settings.isb_queue_type]
        self._losses = Losses(bus, name, patterns, limit=limit, prefetch=self._prefetch)

    @property
    def missed(self) -> int:
        """How many events the queue is known to have dropped before they were read."""
        return self._losses.missed

    def attach(self, link: "AmqpLink") -> None:
        """Make the queue where it is missing, and ask for its messages."""
        _make_source(self._bus, link, "exchange", self._bus.event_exchange)
        self._losses.attach(link, is_there=link.exists("queue", self.name))
        if not link.declare(self._topology):
            link.bind(self._topology)
        link.consume(self.name, prefetch=self._prefetch)

    def receive(self, link: "AmqpLink", received: "Received") -> None:
        """Look for what was lost before a message."""
        self._losses.receive(link, received)

    def acknowledge(self, link: "AmqpLink", received: "Received") -> None:
        """Be done with a message."""
        link.acknowledge(received.tag)
        self._losses.settle(received)

    def close(self) -> None:
        """Keep how far the queue was read."""
        self._losses.flush()

    def takes(self, _: "Received") -> bool:
        """Say that a message was asked for: the bindings have chosen."""
        return True

    def is_new(self, _: "Received") -> bool:
        """Say that a message is new: there is no past to be read."""
        return True

    def pass_by(self, received: "Received") -> None:
        """Do nothing: the queue knows what was read."""

    def has_caught_up(self, _: float) -> bool:
        """Say that there is no past to be read."""
        return True

    def bury(self, link: "AmqpLink", received: "Received", reason: str) -> None:
        """Publish a message among the dead letters, confirmed, and only then acknowledge it."""
        original = received.message
        reason = clip(reason, lambda text: len(text.encode()) <= _MAX_REASON_BYTES)
        headers = {
            "x-dead-reason": reason,
            "x-dead-time": int(time.time()),
            "x-dead-exchange": original.exchange,
            "x-dead-routing-key": original.routing_key,
        }
        if original.full_size is not None:
            headers["x-dead-size"] = original.full_size
        properties = Properties(
            message_id=original.properties.message_id,
            content_type=original.properties.content_type,
            type=original.properties.type,
            timestamp=original.properties.timestamp,
            correlation_id=original.properties.correlation_id,
            headers={**_carried(original.properties.headers), **headers},
        )
        link.publish(Message(DEAD_LETTER_EXCHANGE, self.name, original.body, properties), CONNECT_SECONDS)
        self.acknowledge(link, received)


class _Archive:
    """The stream of all events, whose offsets say where to go on after an interruption."""

    name = None
    missed = 0

    def __init__(self, bus: AmqpBus, patterns: Iterable[str], *, replay: bool | datetime) -> None:
        self._bus = bus
        self._patterns = tuple(patterns)
        self._is_past = bool(replay)
        # In whole seconds, as the messages have it.
        self._begins_at = int(replay.timestamp()) if isinstance(replay, datetime) else 0
        self._may_hold_nothing = False
        # The offsets of the message that was read last, and of the past's last one.
        self._read = self._end = -1
        self._heard_at = 0.0
        self._start: Any = "first" if replay else "next"
        # Where nothing was seen before an interruption there is no offset to go on from, but a time.
        self._restart: Any = "first" if replay else datetime.now(UTC) - _CLOCK_MARGIN
        if isinstance(replay, datetime):
            self._start = self._restart = replay - _CLOCK_MARGIN

    def attach(self, link: "AmqpLink") -> None:
        """Ask for what follows the last message seen."""
        _make_source(self._bus, link, "queue", ARCHIVE_QUEUE)
        if self._is_past:
            self._look_ahead(link.last_of_stream(ARCHIVE_QUEUE, _BEGINNING_SECONDS))
        self._heard_at = time.monotonic()
        link.consume(ARCHIVE_QUEUE, prefetch=ARCHIVE_PREFETCH, arguments={"x-stream-offset": self._start})
        self._start = self._restart

    def _look_ahead(self, last: "Received | None") -> None:
        offset = -1 if last is None or last.offset is None else last.offset
        self._is_past = offset > self._read
        if last is not None and self._is_past:
            self._end = offset
            # Behind the time that is asked for the broker delivers nothing, and does not say so.
            self._may_hold_nothing = (last.message.properties.timestamp or 0) < self._begins_at

    def receive(self, link: "AmqpLink", received: "Received") -> None:
        """Do nothing: a stream drops nothing before its time."""

    def close(self) -> None:
        """Do nothing: who has no name begins anew."""

    def acknowledge(self, link: "AmqpLink", received: "Received") -> None:
        """Be done with a message."""
        link.acknowledge(received.tag)

    def takes(self, received: "Received") -> bool:
        """Say whether a message was asked for: no binding chooses here."""
        return any(topic_matches(pattern, received.message.routing_key) for pattern in self._patterns)

    def is_new(self, received: "Received") -> bool:
        """Say whether a message came after all that there was when this began."""
        return received.offset is None or received.offset > self._end

    def pass_by(self, received: "Received") -> None:
        """Note how far the stream was read, when a message is on its way to whoever asked for it."""
        self._heard_at = time.monotonic()
        if received.offset is not None:
            self._read = received.offset
            self._start = self._restart = received.offset + 1
            self._may_hold_nothing = False
            self._is_past = self._is_past and received.offset < self._end

    def has_caught_up(self, asked_since: float) -> bool:
        """Say whether the past was read, as far as it will be."""
        # Who works on an event for long asks for nothing meanwhile, and has nothing delivered.
        silent_for = time.monotonic() - max(self._heard_at, asked_since)
        if self._is_past and self._may_hold_nothing and silent_for > _BEGINNING_SECONDS:
            self._is_past = False
        elif self._is_past and silent_for > _SILENCE_SECONDS:
            logger.warning("the broker is silent for %g s: what is left of the past is not read", silent_for)
            self._is_past = False
        return not self._is_past

    def bury(self, link: "AmqpLink", received: "Received", _: str) -> None:
        """Pass over a message: who has no name has no dead letters."""
        link.acknowledge(received.tag)


class AmqpReceiver:
    """
    A consumer whose connection belongs to a thread, so that it stays alive however long an event is worked on.

    When the connection breaks the thread makes another; what was not acknowledged is then delivered again. It closes
    when nobody holds it any more, and when the process ends: neither the thread nor a delivery holds it.
    """

    def __init__(self, bus: AmqpBus, source: "_NamedQueue | _Archive") -> None:
        """Connect, declare and bind; what is published from now on is received."""
        self._consumption = _Consumption(bus, source)
        self._finalizer = forks.finalize(self, self._consumption.close)

    @property
    def missed(self) -> int:
        """How many events are known to be lost to this subscription's name."""
        return self._consumption.source.missed

    def has_caught_up(self, asked_since: float) -> bool:
        """Say whether all that the bus held for a replay when it began was received, or waits for `receive`."""
        return self._consumption.source.has_caught_up(asked_since) or self._consumption.is_closing

    def receive(self, timeout: float) -> "AmqpDelivery | None":
        """
        Return the next event, or None where there is none within `timeout` seconds.

        Raises
        ------
        BusError
            where this consumer cannot go on, which another try cannot change.

        """
        try:
            found = self._consumption.deliveries.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(found, BusError):
            # Said again to whoever asks again.
            self._consumption.deliveries.put(found)
            raise found
        return found

    def close(self) -> None:
        """Do what was asked, then disconnect."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()


class _Consumption:
    """The thread of a receiver, and what it shares with others."""

    def __init__(self, bus: AmqpBus, source: "_NamedQueue | _Archive") -> None:
        self.source = source
        self.deliveries: queue.SimpleQueue[AmqpDelivery | BusError] = queue.SimpleQueue()
        self._bus = bus
        self._requests: queue.SimpleQueue[Callable[[AmqpLink | None], None]] = queue.SimpleQueue()
        # No lock in it: the garbage collector may close this in any thread, at any instruction.
        self.is_closing = False
        self._link: AmqpLink | None = self._connect()
        self._thread = threading.Thread(target=self._own_connection, name="dkist-core-consumer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._link.close()
            msg = f"no subscription without a thread of its own: {error}; allow this user or container more of them"
            raise BusError(msg) from error

    def request(self, action: "Callable[[AmqpLink | None], None]") -> None:
        """Have the owning thread do something with its connection, or with None while it has none."""
        self._requests.put(action)
        link = self._link
        if link is not None:
            link.wake()

    def close(self) -> None:
        """Do what was asked, then disconnect."""
        self.is_closing = True
        self.request(lambda _: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _connect(self) -> "AmqpLink":
        link = self._bus.connect()
        try:
            self.source.attach(link)
            # A stream is attached only after the broker has said that it will be.
            link.synchronize()
        except BaseException:
            link.close()
            raise
        return link

    def _own_connection(self) -> None:
        try:
            while not self.is_closing:
                try:
                    self._link = self._link or self._reconnect()
                    self._serve(self._link)
                except BusUnreachableError as error:
                    if not self.is_closing:
                        logger.warning("%s; connecting again", error)
                finally:
                    if self._link is not None:
                        self._link.close()
                    self._link = None
        except BusError as error:
            self.deliveries.put(error)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, the consumer must not wait for it
            ended = BusError(f"{self._bus.where}: the subscription ended: {type(error).__name__}: {error}")
            ended.__cause__ = error
            self.deliveries.put(ended)
        finally:
            self.is_closing = True
            self._pause(0.0)
            self.source.close()

    def _reconnect(self) -> "AmqpLink":
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BusUnreachableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
            stop=lambda _: self.is_closing,
            sleep=self._pause,
            reraise=True,
        )
        return retrying(self._connect)

    def _pause(self, seconds: float) -> None:
        """Wait without a connection, unless this is to close; say so to whoever asks for something."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get(timeout=max(0.0, deadline - time.monotonic()))(None)
                if self.is_closing:
                    deadline = 0.0

    def _serve(self, link: "AmqpLink") -> None:
        while True:
            self._do_requests(link)
            if self.is_closing:
                return
            received = link.receive(_WAIT_SECONDS)
            if received is None:
                continue
            self.source.receive(link, received)
            if self.source.takes(received):
                self.deliveries.put(AmqpDelivery(received, link, self, is_new=self.source.is_new(received)))
            else:
                link.acknowledge(received.tag)
            self.source.pass_by(received)

    def _do_requests(self, link: "AmqpLink") -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get_nowait()(link)


@dataclass(slots=True)
class AmqpDelivery:
    """An event from a queue, on the connection that it came by."""

    received: "Received"
    link: "AmqpLink"
    consumption: _Consumption
    is_new: bool
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.received.message

    def acknowledge(self, wait: float = 0.0) -> None:
        """Have the broker told that this event is dealt with."""
        self._settle(lambda link: self.consumption.source.acknowledge(link, self.received), wait)

    def bury(self, reason: str) -> None:
        """Have the event published among the queue's dead letters."""
        self._settle(lambda link: self.consumption.source.bury(link, self.received, reason), 0.0)

    def _settle(self, action: "Callable[[AmqpLink], None]", wait: float) -> None:
        if self.is_settled or self.consumption.is_closing:
            return
        self.is_settled = True
        is_done = threading.Event()

        def on_same_link(link: "AmqpLink | None") -> None:
            try:
                # Tags belong to their connection: the broker delivers the event again on the one after it.
                if link is not None and link is self.link:
                    action(link)
                    if wait:
                        link.synchronize()
            finally:
                is_done.set()

        self.consumption.request(on_same_link)
        if wait and self.consumption.source.name is not None:
            is_done.wait(wait)
