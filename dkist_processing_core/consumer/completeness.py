"""
The comparison of a consumer's inbox with the archive of the broker: what the queue has lost is taken in from there.

Not here: receiving from the queue (intake), and the end of the archive (bus).
"""

import logging
import time
from collections.abc import Callable, Sequence

from dkist_processing_core.bus import MOST_AHEAD, ArchiveEnd, Bus, Offset, ReceivedMessage, Receiver
from dkist_processing_core.consumer.past import receive_connected
from dkist_processing_core.events import attribute_headers
from dkist_processing_core.inbox import Inbox, Stored
from dkist_processing_core.text import counted

COMPARE_SECONDS = 60.0
"""How often the archive is compared."""
_RECENT_SECONDS = 600.0 - COMPARE_SECONDS
_BATCH = 500
# Of so many messages, and up to twice as many, it is remembered that they are stored.
_REMEMBERED = 100_000
logger = logging.getLogger("dkist_processing_core.consumer")


def archive_of(bus: Bus) -> str:
    """Return the text by which an offset belongs to the archive of a bus."""
    return f"{bus.where}, exchange {bus.event_exchange}"


class Completeness:
    """
    Knows up to which offset of the archive everything is in the inbox, and verifies the rest.

    It notes the end of the archive and the length of the queue. When the queue has delivered as many messages, or is
    empty, each event of the archive up to that end was delivered or is lost. What is beyond the verified offset has
    come to the inbox since the last comparison, or never: if its key is unknown, it was not handled, however old the
    event is. Keys are not deleted before a comparison.
    """

    def __init__(
        self, bus: Bus, inbox: Inbox, patterns: Sequence[str], store: Callable[[Sequence[ReceivedMessage]], Stored]
    ) -> None:
        """Store the bus, the inbox, the patterns of the consumer's queue, and how received messages are stored."""
        self._bus = bus
        # The bus with the archive to which an offset belongs.
        self._here = archive_of(bus)
        self._inbox = inbox
        self._name = inbox.rules.name
        self._patterns = tuple(patterns)
        self._store = store
        self._end: ArchiveEnd | None = None
        # How many messages that it does not remember must be stored before everything up to that end is.
        self._awaited = 0
        # How often the receiver had connected then.
        self._connections = 0
        self._next_at = 0.0
        # Whether the queue was bound a moment after the offset was stored that the next comparison begins at.
        self._is_first = False
        # What is being read of the archive, up to which offset, and how many events of it were missing.
        self._reading: Receiver | None = None
        self._newest = -1
        self._missing = 0
        self.former: tuple[str, ...] = ()
        """The patterns by which the queue may be bound and that the consumer has no more."""
        self._stored: set[int] = set()
        self._stored_before: set[int] = set()

    def note_stored(self, batch: Sequence[ReceivedMessage]) -> None:
        """Remember messages that the inbox has, so that their copies in the archive are not decoded again."""
        if len(self._stored) > _REMEMBERED:
            self._stored_before, self._stored = self._stored, set()
        new = set(map(_hash, batch)) - self._stored - self._stored_before
        self._stored |= new
        # After a lost connection, the queue delivers again what was not acknowledged.
        self._awaited -= len(new)

    def _is_new(self, received: ReceivedMessage) -> bool:
        found = _hash(received)
        return found not in self._stored and found not in self._stored_before

    @property
    def is_done(self) -> bool:
        """Whether no comparison is going on or due."""
        return self._end is None and time.monotonic() < self._next_at

    @property
    def is_recent(self) -> bool:
        """Whether the last comparison ended at most ten minutes ago, or none is possible."""
        return time.monotonic() < self._next_at + _RECENT_SECONDS

    @property
    def is_reading(self) -> bool:
        """Whether the archive is being read: call `read` until it is not."""
        return self._reading is not None

    def begin(self) -> bool:
        """
        Store where a new consumer, or a new selection of events, begins in the archive, and make a comparison due.

        It is called before the queue is bound: if the consumer is killed in between, it has no queue, or knows from
        where on its queue may lose events. After the queue is bound, call `note_bound`.

        Returns:
            True if the queue may be bound now; False if this is to be called again, to read more of the archive.

        Raises:
            BusError, InboxUnavailableError: The consumer has not begun.
        """
        position = self._inbox.position()
        is_elsewhere = position.bus not in (None, self._here)
        bound = (None if is_elsewhere else position.bound) or self._patterns
        if self._reading is None:
            self._end, self._next_at = None, 0.0
            self.former = tuple(pattern for pattern in bound if pattern not in self._patterns)
            if position.verified is None or is_elsewhere:
                self._begin_new(position.bus)
                return True
            if set(self._patterns) <= set(bound):
                return True
            end = self._bus.archive_end(self._name, after=position.verified)
            if end is None:
                return True
            # What the former selection has up to now: the queue will not have the new one's events of that time.
            self._start(position.verified, end, bound)
        if not self._read_batch():
            return False
        logger.info("the consumer %r selects other events from now on", self._name)
        self._inbox.store_position(
            verified=self._newest, bus=self._here, bound=tuple(dict.fromkeys((*bound, *self._patterns)))
        )
        self._is_first = True
        return True

    def _begin_new(self, former_bus: str | None) -> None:
        end = self._bus.archive_end(self._name)
        if end is None:
            return
        if former_bus is not None:
            logger.info(
                "the consumer %r was compared with %s; it begins anew with %s", self._name, former_bus, self._here
            )
        if end.waiting:
            logger.warning(
                "the queue of the consumer %r holds %s already, and the inbox does not know it: they are compared with "
                "the archive from now on, so what the queue has lost before is not noticed",
                self._name,
                counted(end.waiting, "event"),
            )
        self._inbox.store_position(verified=end.newest, bus=self._here, bound=self._patterns)
        self._is_first = True

    def note_bound(self) -> None:
        """Store by which patterns the queue is bound, if that has changed."""
        position = self._inbox.position()
        is_here = position.verified is not None and position.bus in (None, self._here)
        if is_here and position.bound != self._patterns:
            self._inbox.store_position(bound=self._patterns)

    def is_due(self, connections: int, *, is_quiet: bool = False) -> bool:
        """
        Return True if the archive can be compared now.

        Args:
            connections: How often the receiver of the queue has connected.
            is_quiet: Whether the queue has delivered nothing for a while.

        Raises:
            BusError: The broker cannot be used.
        """
        if self._end is None and time.monotonic() < self._next_at:
            return False
        # The queue still had messages then, and has none now, or the broker pauses.
        is_pausing = is_quiet and self._end is not None and self._end.waiting > 0
        if self._end is None or is_pausing or connections != self._connections:
            # Only silence of this connection counts: what was on its way to an earlier one comes again.
            self._note_end()
            self._connections = connections
            return False
        return is_quiet or self._awaited <= 0

    def _note_end(self) -> None:
        self._end = self._bus.archive_end(self._name, after=self._inbox.position().verified)
        if self._end is None:
            self._next_at = float("inf")
        else:
            # Messages on their way to the receiver are not counted by the queue.
            self._awaited = self._end.waiting + MOST_AHEAD

    def compare(self) -> None:
        """
        Begin to read what the archive has beyond the verified offset.

        Raises:
            BusError, InboxUnavailableError: The comparison is to be repeated.
        """
        end, verified = self._end, self._inbox.position().verified
        assert end is not None, "it is due"
        assert verified is not None, "the consumer has begun"
        if verified == end.newest:
            self._finish()
        else:
            self._start(verified, end, self._patterns)

    def read(self) -> None:
        """
        Take in one batch of what is missing; at the end store how far the archive is verified.

        Raises:
            BusError, InboxUnavailableError: The comparison is to be repeated, from where it has come to.
        """
        if not self._read_batch():
            return
        if self._missing and not self._is_first:
            logger.warning(
                "the queue of the consumer %r has lost %s, which it took in from the archive",
                self._name,
                counted(self._missing, "event"),
            )
        self._inbox.store_position(verified=self._newest, bus=self._here)
        self._finish()

    def _finish(self) -> None:
        self._end, self._next_at = None, time.monotonic() + COMPARE_SECONDS
        self._is_first, self._missing = False, 0

    def _start(self, verified: int, end: ArchiveEnd, patterns: tuple[str, ...]) -> None:
        """Begin to read the archive after an offset."""
        begin = verified + 1
        if end.newest < verified:
            logger.warning(
                "the archive of %s was created again; the consumer %r reads it all", self._bus.where, self._name
            )
            begin = 0
        elif end.oldest is not None and end.oldest > begin:
            # A number without a message, of which a stream has some, counts as an event.
            logger.warning(
                "the archive of %s has removed up to %s of all kinds before the consumer %r could compare them: "
                "those of them that its queue has lost as well are lost",
                self._bus.where,
                counted(end.oldest - begin, "event"),
                self._name,
            )
        self._newest = end.newest
        self._reading = self._bus.subscribe(patterns, replay=Offset(begin), in_batches=True)

    def _read_batch(self) -> bool:
        """Store one batch of the archive, and return True if it was the last one."""
        assert self._reading is not None, "it was started"
        asked = time.monotonic()
        try:
            batch = receive_connected(self._reading, _BATCH, self._bus.where)
            older = [received for received in batch if _offset(received) <= self._newest]
            if new := list(filter(self._is_new, older)):
                self._missing += self._store(new).new
            if older:
                self._inbox.store_position(verified=_offset(older[-1]), bus=self._here)
                older[-1].acknowledge(with_earlier=True)
        except Exception:
            self.close()
            raise
        has_end = len(older) < len(batch) or (not batch and self._reading.has_caught_up(asked))
        if has_end:
            self.close()
        return has_end

    def close(self) -> None:
        """End the reading of the archive."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def _hash(received: ReceivedMessage) -> int:
    """Return a number by which a message and its copy are recognised; equal bodies may belong to different events."""
    message, properties = received.message, received.message.properties
    attributes = attribute_headers(properties.content_type, properties.headers)
    return hash((message.body, repr(sorted(attributes.items())) if attributes else ""))


def _offset(received: ReceivedMessage) -> int:
    assert received.position is not None, "it comes from the archive"
    return received.position
