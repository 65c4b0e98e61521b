"""
RabbitMQ as a bus: the outbox in front of it, and the thread that owns a consumer's connection.

Not here: AMQP itself (_amqp), nor what is delivered from the outbox (drain).
"""

import contextlib
import hashlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import tenacity

from dkist_processing_core.bus._bus import topic_matches
from dkist_processing_core.bus._journal import Journal
from dkist_processing_core.bus._message import Message, Properties
from dkist_processing_core.bus._place import open_folder, place
from dkist_processing_core.bus.topology import (
    ARCHIVE_QUEUE,
    DEAD_LETTER_EXCHANGE,
    consumer_topology,
    publisher_topology,
)
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import BusError, BusUnreachableError
from dkist_processing_core.text import clip

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp import AmqpLink, Received

CONNECT_SECONDS = 10.0
PREFETCH = 100
_MAX_REASON_BYTES = 16 * 1024
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
        self.journal_path = place(settings).folder / f"outbox-{digest}.db"

    def open_journal(self, *, synced: bool = True) -> Journal:
        """Open the outbox of this broker."""
        open_folder(self.settings)
        return Journal.open(self.journal_path, synced=synced, destination=self._destination)

    def open_link(self, timeout: float = CONNECT_SECONDS) -> "AmqpLink":
        """Connect, and make what a publisher needs where it is missing."""
        # Here, not above: a process whose bus is the embedded journal needs no pika.
        from dkist_processing_core.bus._amqp import AmqpLink  # noqa: PLC0415

        link = AmqpLink.open(self.settings, timeout)
        try:
            link.declare(publisher_topology(self.settings))
        except BaseException:
            link.close()
            raise
        return link

    def subscribe(self, patterns: Iterable[str], *, name: str | None = None, replay: bool = False) -> "AmqpReceiver":
        """Receive events from a queue; receivers of one name share its events."""
        if name is not None and replay:
            msg = "replay reads the archive, which keeps no place for a name: leave one of them out"
            raise ValueError(msg)
        return AmqpReceiver(self, tuple(patterns), name=name, replay=replay)


class AmqpReceiver:
    """
    A consumer whose connection belongs to a thread, so that it stays alive however long an event is worked on.

    When the connection breaks the thread makes another; what was not acknowledged is then delivered again.
    """

    def __init__(self, bus: AmqpBus, patterns: tuple[str, ...], *, name: str | None, replay: bool) -> None:
        """Connect, declare and bind; what is published from now on is received."""
        self._bus = bus
        self._patterns = patterns
        self._replay = replay
        self._is_named = name is not None
        self._queue = name or f"workflow.events.{uuid.uuid4().hex}"
        self._deliveries: queue.SimpleQueue[AmqpDelivery | BusError] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Callable[[AmqpLink], None]] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._link: AmqpLink | None = self._connect()
        self._thread = threading.Thread(target=self._own_connection, name="dkist-core-consumer", daemon=True)
        self._thread.start()

    def receive(self, timeout: float) -> "AmqpDelivery | None":
        """
        Return the next event, or None where there is none within `timeout` seconds.

        Raises
        ------
        BusRefusedError
            where the broker will not have this consumer any more, which another try cannot change.

        """
        try:
            found = self._deliveries.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(found, BusError):
            raise found
        return found

    def request(self, action: "Callable[[AmqpLink], None]") -> None:
        """Have the owning thread do something with the connection it has by then."""
        self._requests.put(action)
        if self._link is not None:
            self._link.wake()

    def close(self) -> None:
        """Do what was asked, then disconnect."""
        if not self._is_closing.is_set():
            self._is_closing.set()
            if self._link is not None:
                self._link.wake()
            self._thread.join(_JOIN_SECONDS)

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()

    def _connect(self) -> "AmqpLink":
        link = self._bus.open_link()
        try:
            if self._replay:
                link.consume(ARCHIVE_QUEUE, prefetch=PREFETCH, arguments={"x-stream-offset": "first"})
            else:
                topology = consumer_topology(self._bus.settings, self._queue, self._patterns, named=self._is_named)
                if not link.declare(topology):
                    link.bind(topology)
                link.consume(self._queue, prefetch=PREFETCH)
        except BaseException:
            link.close()
            raise
        return link

    def _own_connection(self) -> None:
        while not self._is_closing.is_set():
            try:
                self._link = self._link or self._reconnect()
                self._serve(self._link)
            except BusUnreachableError as error:
                logger.warning("%s; connecting again", error)
            except BusError as error:
                self._deliveries.put(error)
                break
            finally:
                if self._link is not None:
                    self._link.close()
                self._link = None

    def _reconnect(self) -> "AmqpLink":
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BusUnreachableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
            stop=tenacity.stop_when_event_set(self._is_closing),
            sleep=tenacity.sleep_using_event(self._is_closing),
            reraise=True,
        )
        return retrying(self._connect)

    def _serve(self, link: "AmqpLink") -> None:
        while True:
            self._do_requests(link)
            if self._is_closing.is_set():
                return
            received = link.receive(_WAIT_SECONDS)
            if received is None:
                continue
            if self._is_wanted(received):
                self._deliveries.put(AmqpDelivery(received, link, self))
            else:
                link.acknowledge(received.tag)

    def _is_wanted(self, received: "Received") -> bool:
        """Say whether a message was asked for: the archive holds everything, and no binding chooses from it."""
        key = received.message.routing_key
        return not self._replay or any(topic_matches(pattern, key) for pattern in self._patterns)

    def _do_requests(self, link: "AmqpLink") -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get_nowait()(link)

    def bury(self, link: "AmqpLink", received: "Received", reason: str) -> None:
        """Publish a message among the dead letters, confirmed, and only then acknowledge it."""
        if self._is_named:
            original = received.message
            reason = clip(reason, lambda text: len(text.encode()) <= _MAX_REASON_BYTES)
            headers = {
                "x-dead-reason": reason,
                "x-dead-time": int(time.time()),
                "x-dead-exchange": original.exchange,
                "x-dead-routing-key": original.routing_key,
            }
            properties = Properties(
                message_id=original.properties.message_id,
                content_type=original.properties.content_type,
                type=original.properties.type,
                timestamp=original.properties.timestamp,
                correlation_id=original.properties.correlation_id,
                headers={**original.properties.headers, **headers},
            )
            link.publish(Message(DEAD_LETTER_EXCHANGE, self._queue, original.body, properties), CONNECT_SECONDS)
        link.acknowledge(received.tag)


@dataclass(slots=True)
class AmqpDelivery:
    """An event from a queue, on the connection that it came by."""

    received: "Received"
    link: "AmqpLink"
    receiver: AmqpReceiver
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.received.message

    def acknowledge(self) -> None:
        """Have the broker told that this event is dealt with."""
        self._settle(lambda link: link.acknowledge(self.received.tag))

    def bury(self, reason: str) -> None:
        """Have the event published among the queue's dead letters."""
        self._settle(lambda link: self.receiver.bury(link, self.received, reason))

    def _settle(self, action: "Callable[[AmqpLink], None]") -> None:
        if self.is_settled:
            return
        self.is_settled = True

        def on_same_link(link: "AmqpLink") -> None:
            # Tags belong to their connection: the broker delivers the event again on the one after it.
            if link is self.link:
                action(link)

        self.receiver.request(on_same_link)
