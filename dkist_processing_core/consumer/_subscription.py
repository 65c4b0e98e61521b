"""
A subscription: an iterator that receives, decodes and acknowledges events.

Not here: opening one (_subscribe), the state derived from reports (runs), and receiving from either bus (bus).
"""

import functools
import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Self

from dkist_processing_core.bus import ReceivedMessage, Receiver
from dkist_processing_core.consumer._passed_over import PassedOver
from dkist_processing_core.consumer._seen_ids import SeenIds
from dkist_processing_core.consumer._selection import Selection
from dkist_processing_core.errors import BusError, DecodeError, UnknownEventError
from dkist_processing_core.events import Event, check_size, decode
from dkist_processing_core.journal.message import Message
from dkist_processing_core.process.signals import signals_deferred

_ACK_SECONDS = 2.0
# The longest delay of the author's signal handler, such as a time limit, during a poll.
_POLL_SECONDS = 0.1
# A replay may reach the end of the backlog at any time, and reports it only on request.
_REPLAY_POLL_SECONDS = 0.05
logger = logging.getLogger(__name__)


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
        is_named: bool = False,
    ) -> None:
        """Store an open receiver, as `subscribe` creates it."""
        self._receiver = receiver
        self._selection = selection
        self._timeout = timeout
        self._seen = None if every_report else SeenIds()
        self._in_hand: ReceivedMessage | None = None
        # An event that was received but not yet yielded: a handler's exception may come in between.
        self._ready: tuple[Event, ReceivedMessage] | None = None
        self._is_closed = False
        self._has_caught_up = not replay
        self._unknown = 0
        self._passed_over = PassedOver(is_named=is_named)
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
        quiet_since = asked_since = time.monotonic()
        while self._ready is None and not self._is_closed:
            with signals_deferred():
                if self._in_hand is not None:
                    self._in_hand.acknowledge()
                    self._in_hand = None
                    quiet_since = asked_since = time.monotonic()
                # This is read before receiving: events that existed at that time are received at once.
                is_replaying = not self._receiver.has_caught_up(asked_since)
                patience = _POLL_SECONDS
                if is_replaying:
                    patience = _REPLAY_POLL_SECONDS
                elif self._timeout is not None:
                    patience = min(patience, quiet_since + self._timeout - time.monotonic())
                received = self._receiver.receive(max(0.0, patience))
                if received is None and not is_replaying:
                    self._has_caught_up = True
                    self._passed_over.report()
                    if patience <= 0:
                        break
                elif received is None:
                    quiet_since = time.monotonic()
                else:
                    # More events may follow it, whether it is wanted or not.
                    quiet_since = asked_since = time.monotonic()
                    self._has_caught_up |= received.is_new
                    self._ready = self._decoded(received)
        if self._ready is None or self._is_closed:
            raise StopIteration
        # No function is called here, since a signal handler could run during the call.
        event, self._in_hand = self._ready
        self._ready = None
        return event

    def _decoded(self, received: ReceivedMessage) -> tuple[Event, ReceivedMessage] | None:
        """Return the event of a message, or settle the message if it is undecodable, unwanted, or already known."""
        message = received.message
        event = event_of(message)
        if isinstance(event, UnknownEventError):
            self._skip_unknown(event)
            received.acknowledge()
            return None
        if isinstance(event, Exception):
            reason = str(event) if isinstance(event, DecodeError) else f"{type(event).__name__}: {event}"
            self._passed_over.add(message, reason, at_once=self._has_caught_up)
            received.dead_letter(reason)
            return None
        if self._selection.matches(event) and (self._seen is None or self._seen.is_new(event)):
            acknowledge = functools.partial(_acknowledge, self._pid, received)
            return event.with_acknowledgement(acknowledge, datetime.now(UTC)), received
        received.acknowledge()
        return None

    def _skip_unknown(self, error: UnknownEventError) -> None:
        if not self._unknown:
            logger.warning("events of types that this release does not know are skipped; the first: %s", error)
        self._unknown += 1

    def close(self) -> None:
        """
        End the subscription; a current event that is not acknowledged is delivered again under the same name.

        In a fork of the process that it belongs to this does nothing.
        """
        if self._pid == os.getpid():
            self._is_closed = True
            with signals_deferred():
                self._passed_over.report()
                self._receiver.close()

    def __enter__(self) -> Self:
        """Return the subscription itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the subscription."""
        self.close()


def event_of(message: Message) -> Event | Exception:
    """Return the event that a message carries, or the exception that explains why there is none."""
    try:
        if message.refusal is not None:
            return DecodeError(message.refusal)
        if message.full_size is not None:
            check_size(message.full_size)
        return decode(message.body, message.properties.content_type, message.properties.headers)
    except Exception as error:  # noqa: BLE001 - no error of a foreign message may end a consumer
        return error


def _refuse_fork_of(pid: int) -> None:
    if pid != os.getpid():
        msg = (
            f"the subscription belongs to process {pid}, which opened it; found process {os.getpid()}, a fork of it: "
            "call subscribe() in the process that reads"
        )
        raise BusError(msg)


def _acknowledge(pid: int, received: ReceivedMessage) -> None:
    # This holds no reference to the subscription, which ends when a program keeps only its events.
    _refuse_fork_of(pid)
    with signals_deferred():
        received.acknowledge(_ACK_SECONDS)
