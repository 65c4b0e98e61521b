"""
The comparison of a consumer's inbox with the archive of the broker: what the queue has lost is taken in from there.

Not here: receiving from the queue (intake), and the end of the archive (bus).
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from dkist_processing_core.bus import ArchiveEnd, Bus, Offset, ReceivedMessage
from dkist_processing_core.inbox import Stored
from dkist_processing_core.text import counted

COMPARE_SECONDS = 60.0
"""How often the archive is compared."""
_BATCH = 500
# Of so many messages, and up to twice as many, it is remembered that they are stored.
_REMEMBERED = 100_000
_WAIT_SECONDS = 0.1
logger = logging.getLogger("dkist_processing_core.consumer")


class _Store(Protocol):
    def __call__(self, batch: Sequence[ReceivedMessage], *, verified: int | None = None) -> Stored: ...


class Completeness:
    """
    Knows up to which offset of the archive everything is in the inbox, and verifies the rest.

    It notes the end of the archive and the length of the queue. When the queue has delivered as many messages, or is
    empty, each event of the archive up to that end was delivered or is lost.
    """

    def __init__(
        self, bus: Bus, name: str, patterns: Sequence[str], verified: Callable[[], int | None], store: _Store
    ) -> None:
        """Store the bus, the name of the queue, its patterns, and how the verified offset is read and stored."""
        self._bus = bus
        self._name = name
        self._patterns = patterns
        self._verified = verified
        self._store = store
        self._end: ArchiveEnd | None = None
        self._awaited = 0
        self._next_at = 0.0
        # Whether the next comparison is the first one: the queue was bound a moment after its offset was stored.
        self._is_first = False
        self._stored: set[int] = set()
        self._stored_before: set[int] = set()

    def note_stored(self, batch: Sequence[ReceivedMessage]) -> None:
        """Remember messages that the inbox has, so that their copies in the archive are not decoded again."""
        if len(self._stored) > _REMEMBERED:
            self._stored_before, self._stored = self._stored, set()
        self._stored.update(hash(received.message.body) for received in batch)

    def _is_new(self, received: ReceivedMessage) -> bool:
        found = hash(received.message.body)
        return found not in self._stored and found not in self._stored_before

    @property
    def is_done(self) -> bool:
        """Whether no comparison is going on or due."""
        return self._end is None and time.monotonic() < self._next_at

    def begin(self) -> None:
        """
        Store where a new consumer begins in the archive, and make a comparison due.

        It is called before the queue is bound: a consumer that is killed in between has no queue, or knows from where
        on its queue may lose events.

        Raises:
            BusError, InboxUnavailableError: The consumer has not begun.
        """
        self._end, self._next_at = None, 0.0
        if self._verified() is not None:
            return
        end = self._bus.archive_end(self._name)
        if end is None:
            return
        if end.waiting:
            logger.warning(
                "the queue of the consumer %r holds %s already, and the inbox does not know it: they are compared with "
                "the archive from now on, so what the queue has lost before is not noticed",
                self._name,
                counted(end.waiting, "event"),
            )
        self._store([], verified=end.newest)
        self._is_first = True

    def is_due(self, received: int, *, is_quiet: bool = False) -> bool:
        """
        Return True if the archive can be compared now.

        Args:
            received: How many messages the queue has delivered since the last call.
            is_quiet: Whether it has delivered none for a while.

        Raises:
            BusError: The broker cannot be used.
        """
        if self._end is None and time.monotonic() >= self._next_at:
            self._note_end()
            return False
        if self._end is None:
            return False
        self._awaited -= received
        if is_quiet and self._end.waiting:
            # The queue still had messages then, and has none now, or the broker pauses.
            self._note_end()
            return False
        return is_quiet or self._awaited <= 0

    def _note_end(self) -> None:
        self._end = self._bus.archive_end(self._name, after=self._verified())
        if self._end is None:
            self._next_at = float("inf")
        else:
            # Messages on their way to the receiver are not counted by the queue.
            self._awaited = self._end.waiting + _BATCH

    def compare(self) -> None:
        """
        Take in what is missing, and store how far the archive is verified.

        Raises:
            BusError, InboxUnavailableError: The comparison is to be repeated.
        """
        end, verified = self._end, self._verified()
        assert end is not None, "it is due"
        assert verified is not None, "the consumer has begun"
        if verified != end.newest:
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
            missing = self._take_in(begin, end.newest)
            if missing and not self._is_first:
                logger.warning(
                    "the queue of the consumer %r has lost %s, which it took in from the archive",
                    self._name,
                    counted(missing, "event"),
                )
        self._end, self._next_at, self._is_first = None, time.monotonic() + COMPARE_SECONDS, False

    def _take_in(self, begin: int, newest: int) -> int:
        """Store the events of the archive between two offsets, and return how many were missing."""
        missing = 0
        with self._bus.subscribe(self._patterns, replay=Offset(begin), in_batches=True) as past:
            has_end = False
            while not has_end:
                asked = time.monotonic()
                batch = past.receive_batch(_BATCH, _WAIT_SECONDS)
                if not batch and past.has_caught_up(asked):
                    break
                older = [received for received in batch if _offset(received) <= newest]
                has_end = len(older) < len(batch)
                if new := list(filter(self._is_new, older)):
                    missing += self._store(new).new
                if older:
                    older[-1].acknowledge(with_earlier=True)
        self._store([], verified=newest)
        return missing


def _offset(received: ReceivedMessage) -> int:
    return int(received.message.properties.headers["x-stream-offset"])
