"""
The thread that owns the connection of a subscription, and the state that it shares with other threads.

Not here: the requests to the broker (link), and the sources of messages (named_queue, archive).
"""

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Protocol

import tenacity

from dkist_processing_core.bus.amqp.received import AmqpReceivedMessage
from dkist_processing_core.errors import BusError, BusUnreachableError
from dkist_processing_core.process.own_random import own_random

if TYPE_CHECKING:
    from collections.abc import Callable

    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

_WAIT_SECONDS = 5.0
_JOIN_SECONDS = 3.0
_LONGEST_PAUSE_SECONDS = 10.0
logger = logging.getLogger(__name__)


class Source(Protocol):
    """A queue or a stream that messages come from. Only the thread that owns a link calls methods with it."""

    @property
    def name(self) -> str | None:
        """The name of the subscription; None without one."""

    @property
    def missed(self) -> int:
        """Number of events that the source is known to have dropped before they were read."""

    def attach(self, link: "AmqpLink") -> None:
        """Create the source if it is missing, and subscribe to it."""

    def receive(self, link: "AmqpLink", received: "TaggedMessage") -> None:
        """Check for events that were lost before a message."""

    def takes(self, received: "TaggedMessage") -> bool:
        """Return True if a message matches the patterns of the subscription."""

    def is_new(self, received: "TaggedMessage") -> bool:
        """Return True if a message is newer than all messages that the source held at the start."""

    def record_read(self, received: "TaggedMessage") -> None:
        """Record how far the source was read, after a message was passed to the receiver."""

    def backlog(self, link: "AmqpLink") -> int | None:
        """Return how many messages the broker has not delivered yet; None if that is not known."""

    def has_caught_up(self, requested_since: float) -> bool:
        """Return True if a replay is complete, or was ended because the broker is silent since `requested_since`."""

    def acknowledge(self, link: "AmqpLink", received: "TaggedMessage", *, with_earlier: bool = False) -> None:
        """Acknowledge a message, or with all that this link received before it."""

    def dead_letter(self, link: "AmqpLink", received: "TaggedMessage", reason: str) -> None:
        """Publish a message to the source's dead letters, if it has any, and acknowledge it."""

    def close(self) -> None:
        """Store the read position, if the source has one."""


class ConsumerThread:
    """The thread of a receiver, and the state that it shares with other threads."""

    def __init__(self, bus: "AmqpBus", source: Source, *, in_batches: bool = False, only_watches: bool = False) -> None:
        """
        Connect, attach the source, and start the thread; see `Bus.subscribe`.

        Raises:
            BusError: The broker cannot be used, or no thread can be started.
        """
        self.source = source
        self.messages: queue.SimpleQueue[AmqpReceivedMessage | BusError] = queue.SimpleQueue()
        self._bus = bus
        self._in_batches = in_batches
        self._level_of_outages = logging.INFO if only_watches else logging.WARNING
        self._requests: queue.SimpleQueue[Callable[[AmqpLink | None], None]] = queue.SimpleQueue()
        # A flag without a lock, because the garbage collector may close this in any thread, at any instruction.
        self.is_closing = False
        self.connections = 0
        self._link: AmqpLink | None = self._connect()
        self._thread = threading.Thread(target=self._own_connection, name="dkist-core-consumer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._link.close()
            msg = f"a subscription needs its own thread: {error}; allow this user or container more threads"
            raise BusError(msg) from error

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, on which messages can arrive."""
        return self._link is not None

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
        self.connections += 1
        link.keeps_excerpts = self._in_batches
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
                        logger.log(self._level_of_outages, "%s; connecting again", error)
                finally:
                    if self._link is not None:
                        self._link.close()
                    self._link = None
        except BusError as error:
            self.messages.put(error)
        except Exception as error:  # noqa: BLE001 - a consumer must not wait for an ended thread
            ended = BusError(f"{self._bus.where}: the subscription ended: {type(error).__name__}: {error}")
            ended.__cause__ = error
            self.messages.put(ended)
        finally:
            self.is_closing = True
            self._pause(0.0)
            self.source.close()

    def _reconnect(self) -> "AmqpLink":
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BusUnreachableError),
            wait=lambda state: own_random.uniform(0.0, min(_LONGEST_PAUSE_SECONDS, 0.1 * 2**state.attempt_number)),
            stop=lambda _: self.is_closing,
            sleep=self._pause,
            reraise=True,
        )
        link = retrying(self._connect)
        logger.info("connected again to %s; the subscription continues", self._bus.where)
        return link

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
            for received in link.receive_all(_WAIT_SECONDS):
                self.source.receive(link, received)
                if self.source.takes(received):
                    self.messages.put(AmqpReceivedMessage(received, link, self, is_new=self.source.is_new(received)))
                else:
                    link.acknowledge(received.tag)
                self.source.record_read(received)

    def _do_requests(self, link: "AmqpLink") -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get_nowait()(link)
