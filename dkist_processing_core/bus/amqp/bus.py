"""
RabbitMQ as a bus: the outbox in front of it, and the thread that owns a consumer's connection.

Not here: AMQP itself (_amqp), and the delivery from the outbox (drain).
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

from dkist_processing_core.bus.amqp.losses import Losses
from dkist_processing_core.bus.topology import (
    ARCHIVE_QUEUE,
    DEAD_LETTER_EXCHANGE,
    consumer_topology,
    publisher_topology,
)
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import BusError, BusUnreachableError, JournalError
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.mending import open_mended
from dkist_processing_core.journal.message import Message, Properties, topic_matches
from dkist_processing_core.journal.place import open_folder, place
from dkist_processing_core.journal.spare import Spare
from dkist_processing_core.process import forks
from dkist_processing_core.text import clip

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.client import AmqpLink, Received

CONNECT_SECONDS = 10.0
# Few for a classic queue: a message that waits long behind the others counts as not acknowledged in time
# (`consumer_timeout`). One for a quorum queue: it counts each return of a message, also of one that the consumer never
# received, and drops the message at a limit.
QUEUE_PREFETCH = {"classic": 20, "quorum": 1}
ARCHIVE_PREFETCH = 100
# By how much the clocks of this host and of the broker may differ.
_CLOCK_MARGIN = timedelta(seconds=5)
# How long a stream may deliver nothing before it counts as empty, or as without messages since a given time.
_BEGINNING_SECONDS = 1.0
# How long a replay that has not reached its end waits for a broker that is silent or unreachable.
_SILENCE_SECONDS = 30.0
_MAX_REASON_BYTES = 16 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_WAIT_SECONDS = 5.0
_JOIN_SECONDS = 3.0
logger = logging.getLogger(__name__)


class AmqpBus:
    """Publish through an outbox that is drained to the broker; consume from a queue per name, or from the archive."""

    is_remote = True

    def __init__(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """Store the names of broker and outbox; nothing is connected or opened yet."""
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
        """Create a spare journal beside the outbox."""
        open_folder(self.place)
        return Spare.open(self.journal_path)

    def connect(self, timeout: float = CONNECT_SECONDS, *, deadline: float = math.inf) -> "AmqpLink":
        """Return a connected link; none of its calls waits past `deadline` (`time.monotonic`)."""
        return self.load().open(self.settings, timeout, deadline=deadline)

    def load(self) -> "type[AmqpLink]":
        """Import and return the class `AmqpLink`: a process that uses the embedded journal does not need pika."""
        from dkist_processing_core.bus.amqp.client import AmqpLink  # noqa: PLC0415

        return AmqpLink

    def open_link(self, timeout: float = CONNECT_SECONDS) -> "AmqpLink":
        """Return a connected link, and create the missing exchanges, queues and bindings of a publisher."""
        link = self.connect(timeout)
        try:
            link.declare(publisher_topology(self.settings))
        except BaseException:
            link.close()
            raise
        return link

    def restore(self, link: "AmqpLink", *, bindings: bool = True) -> BusError | None:
        """Create the missing exchanges, queues and bindings of a publisher; return the broker's refusal, if any."""
        error = link.restore(publisher_topology(self.settings), bindings=bindings)
        if (lost := self.lost_history(link)) is not None:
            logger.warning("%s", lost)
        return error

    def lost_history(self, link: "AmqpLink") -> str | None:
        """
        Return a warning of lost events if a link has created the archive though this host has delivered events before.

        The warning is returned once per link; otherwise None.
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
        """Return a receiver: with a name from the queue that all receivers of that name share, else of the archive."""
        source = _Archive(self, patterns, replay=replay) if name is None else _NamedQueue(self, name, patterns)
        return AmqpReceiver(self, source)


def _carried(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the original headers for a dead letter; a note on their size if they leave no room for ours in a frame."""
    size = len(json.dumps(dict(headers), default=str))
    return dict(headers) if size <= _MAX_HEADER_BYTES else {"x-dead-headers": f"left out: {size} characters"}


def _make_source(bus: AmqpBus, link: "AmqpLink", kind: str, name: str) -> None:
    """Create the publishers' topology if the item that a receiver reads from is missing; no other item is checked."""
    if link.exists(kind, name) is False:
        error = bus.restore(link)
        if error is not None:
            raise error


class _NamedQueue:
    """A durable queue, which keeps messages until they are acknowledged."""

    def __init__(self, bus: AmqpBus, name: str, patterns: Iterable[str]) -> None:
        self.name = name
        self._bus = bus
        self._topology = consumer_topology(bus.settings, name, patterns := tuple(patterns))
        limit = self._topology.queues[0].arguments["x-max-length"]
        self._prefetch = QUEUE_PREFETCH[bus.settings.isb_queue_type]
        self._losses = Losses(bus, name, patterns, limit=limit, prefetch=self._prefetch)

    @property
    def missed(self) -> int:
        """Number of events that the queue is known to have dropped before they were read."""
        return self._losses.missed

    def attach(self, link: "AmqpLink") -> None:
        """Create the queue if it is missing, and subscribe to it."""
        _make_source(self._bus, link, "exchange", self._bus.event_exchange)
        self._losses.attach(link, is_there=link.exists("queue", self.name))
        if not link.declare(self._topology):
            link.bind(self._topology)
        link.consume(self.name, prefetch=self._prefetch)

    def receive(self, link: "AmqpLink", received: "Received") -> None:
        """Check for events that were lost before a message."""
        self._losses.receive(link, received)

    def acknowledge(self, link: "AmqpLink", received: "Received") -> None:
        """Acknowledge a message."""
        link.acknowledge(received.tag)
        self._losses.settle(received)

    def close(self) -> None:
        """Store how far the queue was read."""
        self._losses.flush()

    def takes(self, _: "Received") -> bool:
        """Return True: the bindings of the queue have already selected its messages."""
        return True

    def is_new(self, _: "Received") -> bool:
        """Return True: a queue replays no earlier messages."""
        return True

    def pass_by(self, received: "Received") -> None:
        """Do nothing: the queue records which messages were read."""

    def has_caught_up(self, _: float) -> bool:
        """Return True: a queue replays no earlier messages."""
        return True

    def bury(self, link: "AmqpLink", received: "Received", reason: str) -> None:
        """Publish a message to the dead letters, and acknowledge it only after the broker has confirmed that."""
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
    """The stream of all events; its offsets are the positions to continue from after an interruption."""

    name = None
    missed = 0

    def __init__(self, bus: AmqpBus, patterns: Iterable[str], *, replay: bool | datetime) -> None:
        self._bus = bus
        self._patterns = tuple(patterns)
        self._is_past = bool(replay)
        # In whole seconds, like the timestamps of messages.
        self._begins_at = int(replay.timestamp()) if isinstance(replay, datetime) else 0
        self._may_hold_nothing = False
        # The offset of the message that was read last, and of the last message of the replay.
        self._read = self._end = -1
        self._heard_at = 0.0
        self._start: Any = "first" if replay else "next"
        # If no message arrived before an interruption, reading continues from a time instead of an offset.
        self._restart: Any = "first" if replay else datetime.now(UTC) - _CLOCK_MARGIN
        if isinstance(replay, datetime):
            self._start = self._restart = replay - _CLOCK_MARGIN

    def attach(self, link: "AmqpLink") -> None:
        """Subscribe to the messages after the last one that was read."""
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
            # If there is no message after the requested time, the broker delivers nothing and does not report it.
            self._may_hold_nothing = (last.message.properties.timestamp or 0) < self._begins_at

    def receive(self, link: "AmqpLink", received: "Received") -> None:
        """Do nothing: a stream drops messages only at its limits of age and size."""

    def close(self) -> None:
        """Do nothing: a subscription without a name has no position to store."""

    def acknowledge(self, link: "AmqpLink", received: "Received") -> None:
        """Acknowledge a message."""
        link.acknowledge(received.tag)

    def takes(self, received: "Received") -> bool:
        """Return True if a message matches the patterns: no binding selects the messages of a stream."""
        return any(topic_matches(pattern, received.message.routing_key) for pattern in self._patterns)

    def is_new(self, received: "Received") -> bool:
        """Return True if a message is newer than all messages that the stream held at the start."""
        return received.offset is None or received.offset > self._end

    def pass_by(self, received: "Received") -> None:
        """Record how far the stream was read, after a message was passed to the receiver."""
        self._heard_at = time.monotonic()
        if received.offset is not None:
            self._read = received.offset
            self._start = self._restart = received.offset + 1
            self._may_hold_nothing = False
            self._is_past = self._is_past and received.offset < self._end

    def has_caught_up(self, asked_since: float) -> bool:
        """Return True if the replay is complete, or was given up because the broker is silent."""
        # A consumer that works on an event for long requests nothing meanwhile, and so receives nothing.
        silent_for = time.monotonic() - max(self._heard_at, asked_since)
        if self._is_past and self._may_hold_nothing and silent_for > _BEGINNING_SECONDS:
            self._is_past = False
        elif self._is_past and silent_for > _SILENCE_SECONDS:
            logger.warning("the broker is silent for %g s: what is left of the past is not read", silent_for)
            self._is_past = False
        return not self._is_past

    def bury(self, link: "AmqpLink", received: "Received", _: str) -> None:
        """Acknowledge a message only: a subscription without a name has no dead letters."""
        link.acknowledge(received.tag)


class AmqpReceiver:
    """
    A consumer whose connection is served by a thread, so that it stays alive while an event is processed.

    When the connection breaks the thread connects again; then the broker delivers unacknowledged events again. The
    receiver closes when no reference to it is left, and when the process ends. Neither the thread nor a delivery holds
    a reference.
    """

    def __init__(self, bus: AmqpBus, source: "_NamedQueue | _Archive") -> None:
        """Connect, declare and bind; events that are published from now on are received."""
        self._consumption = _Consumption(bus, source)
        self._finalizer = forks.finalize(self, self._consumption.close)

    @property
    def missed(self) -> int:
        """Number of events that this subscription's name is known to have lost."""
        return self._consumption.source.missed

    def has_caught_up(self, asked_since: float) -> bool:
        """Return True if all events of the replay were received or wait for `receive`, or if this is closing."""
        return self._consumption.source.has_caught_up(asked_since) or self._consumption.is_closing

    def receive(self, timeout: float) -> "AmqpDelivery | None":
        """
        Return the next event; None if none arrives within `timeout` seconds.

        Raises:
            BusError: This consumer cannot continue, and a further call cannot change that.
        """
        try:
            found = self._consumption.deliveries.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(found, BusError):
            # Put it back, so that each further call raises it, too.
            self._consumption.deliveries.put(found)
            raise found
        return found

    def close(self) -> None:
        """Carry out the pending requests, then disconnect."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()


class _Consumption:
    """The thread of a receiver, and the state that it shares with other threads."""

    def __init__(self, bus: AmqpBus, source: "_NamedQueue | _Archive") -> None:
        self.source = source
        self.deliveries: queue.SimpleQueue[AmqpDelivery | BusError] = queue.SimpleQueue()
        self._bus = bus
        self._requests: queue.SimpleQueue[Callable[[AmqpLink | None], None]] = queue.SimpleQueue()
        # A plain flag without a lock: the garbage collector may close this in any thread, at any instruction.
        self.is_closing = False
        self._link: AmqpLink | None = self._connect()
        self._thread = threading.Thread(target=self._own_connection, name="dkist-core-consumer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._link.close()
            msg = f"a subscription needs its own thread: {error}; allow this user or container more of them"
            raise BusError(msg) from error

    def request(self, action: "Callable[[AmqpLink | None], None]") -> None:
        """Let the owning thread call `action` with its link, or with None while it has none."""
        self._requests.put(action)
        link = self._link
        if link is not None:
            link.wake()

    def close(self) -> None:
        """Carry out the pending requests, then disconnect."""
        self.is_closing = True
        self.request(lambda _: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _connect(self) -> "AmqpLink":
        link = self._bus.connect()
        try:
            self.source.attach(link)
            # The broker attaches a consumer to a stream only after it has confirmed the subscription.
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
        """Wait without a connection, until this is closing; answer all requests with None instead of a link."""
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
    """An event from a queue or the archive, with the link that it arrived on."""

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
        """Request the acknowledgement of this event; wait up to `wait` seconds until the broker has processed it."""
        self._settle(lambda link: self.consumption.source.acknowledge(link, self.received), wait)

    def bury(self, reason: str) -> None:
        """Request that the event is published to the queue's dead letters, with the reason."""
        self._settle(lambda link: self.consumption.source.bury(link, self.received, reason), 0.0)

    def _settle(self, action: "Callable[[AmqpLink], None]", wait: float) -> None:
        if self.is_settled or self.consumption.is_closing:
            return
        self.is_settled = True
        is_done = threading.Event()

        def on_same_link(link: "AmqpLink | None") -> None:
            try:
                # A tag is valid on its own connection only: on the next connection the broker delivers the event again.
                if link is not None and link is self.link:
                    action(link)
                    if wait:
                        link.synchronize()
            finally:
                is_done.set()

        self.consumption.request(on_same_link)
        if wait and self.consumption.source.name is not None:
            is_done.wait(wait)
