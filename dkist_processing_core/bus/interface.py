"""
The interface of a bus, which publishers and consumers use with either transport.

Not here: the two transports (embedded, amqp).
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import Spare

Batches = Generator[list[Message], None, None]
"""Messages that are read backwards: the newest batch first, and within a batch the oldest message first."""
FEWEST_AT_ONCE, MOST_AT_ONCE = 256, 16_384
"""The most messages in the first of these batches; each further one may have twice as many, up to the second number."""

MOST_AHEAD = 750
"""
The most messages that a bus delivers in batches ahead of their acknowledgement.

More than the largest batch of a consumer: the next one arrives while one is stored. 750 events of 64 KiB leave a
consumer below 150 MiB. The number does not follow the speed of the database: an open subscription keeps its prefetch,
and a new one on its channel would put messages that are on their way behind later ones. A slow database keeps no other
reader waiting, since one process reads the queue.
"""


@dataclass(frozen=True, slots=True)
class Offset:
    """The position of a message in the archive of a broker."""

    number: int


@dataclass(frozen=True, slots=True)
class ArchiveEnd:
    """What the archive and the queue of a named subscription hold at one moment."""

    newest: int
    """The offset of the newest message of the archive; -1 if it has none."""
    waiting: int
    """How many messages the queue holds that were not delivered yet."""
    oldest: int | None = None
    """The offset of the oldest message of the archive, if there are messages that were not compared before."""


class ReceivedMessage(Protocol):
    """A message that a consumer has received, until it is acknowledged or dead-lettered."""

    @property
    def message(self) -> Message:
        """The message."""

    @property
    def position(self) -> int | None:
        """The place of the message among all that the bus keeps; None if it is not known."""

    @property
    def is_new(self) -> bool:
        """Whether it reached the bus after its receiver began; False only for earlier events that a replay reads."""

    def acknowledge(self, wait: float = 0.0, *, with_earlier: bool = False) -> None:
        """
        Acknowledge the message. A second call does nothing, and neither does a call after the receiver was closed.

        Args:
            wait: How many seconds to wait at most until the bus has processed the acknowledgement.
            with_earlier: Also acknowledge all messages that the receiver has returned before this one.
        """

    def dead_letter(self, reason: str) -> None:
        """Dead-letter the message with a reason, and acknowledge it."""


class Receiver(Protocol):
    """
    An open subscription. Messages that are delivered but unacknowledged when it closes are delivered again.

    It closes by itself when no reference to it is left, even if references to its deliveries remain.
    """

    @property
    def missed(self) -> int:
        """Number of events that the name of the subscription is known to have lost: the bus dropped them unread."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can arrive now; a receiver whose connection is lost connects again, and logs that."""

    @property
    def connections(self) -> int:
        """How often it has connected."""

    def backlog(self) -> int | None:
        """
        Return how many messages the bus has for the subscription and has not delivered.

        None if that is not known, or if another receiver of its name may have received some.
        """

    def has_caught_up(self, requested_since: float) -> bool:
        """
        Return True if all events that the bus held for a replay at its start were received or wait for `receive`.

        Args:
            requested_since: The time (`time.monotonic`) since which the consumer has been waiting for an event. Silence
                of the bus counts only from then on: before, the consumer requested nothing.
        """

    def receive(self, timeout: float) -> ReceivedMessage | None:
        """Return the next message; None if none arrives within `timeout` seconds."""

    def receive_batch(self, most: int, timeout: float) -> "Sequence[ReceivedMessage]":
        """Return the messages that have arrived, at most `most`; none if none arrives within `timeout` seconds."""

    def close(self) -> None:
        """End the subscription."""

    def __enter__(self) -> Self:
        """Return the receiver itself."""

    def __exit__(self, *_: object) -> None:
        """End the subscription."""


class Bus(Protocol):
    """The destination of published messages, and the source of received ones."""

    @property
    def is_remote(self) -> bool:
        """Whether the journal is an outbox, whose messages are still to be drained to the bus."""

    @property
    def where(self) -> str:
        """A description of the bus for operators."""

    @property
    def journal_path(self) -> Path:
        """The journal to which every message of this bus is appended first."""

    @property
    def event_exchange(self) -> str:
        """The exchange to which events are published."""

    @property
    def failure_exchange(self) -> str:
        """The exchange to which the failure message of release 7.x is published."""

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the journal of this bus."""

    def open_spare(self) -> Spare:
        """Create a spare journal in the folder of the journal, which must be a trusted folder."""

    def subscribe(
        self,
        patterns: Iterable[str],
        *,
        name: str | None = None,
        replay: bool | datetime | Offset = False,
        in_batches: bool = False,
        former: Iterable[str] = (),
        only_watches: bool = False,
    ) -> Receiver:
        """
        Return a receiver of the events whose routing keys match one of the patterns.

        Args:
            patterns: AMQP's topic patterns: `*` matches one word, `#` any number of words.
            name: A named subscription keeps its position: the bus keeps events that arrive while no receiver is open.
                A subscription without a name begins now.
            replay: For a subscription without a name: True begins at the oldest event that the bus still has; a time
                begins at the oldest event after that time, or slightly earlier. An offset, which `archive_end` has
                returned, begins at the message of that offset.
            in_batches: For a consumer that stores what it receives: the broker may deliver many messages ahead of their
                acknowledgement, and lost events are not counted, since such a consumer compares its own records with
                the archive.
            former: Patterns by which the named subscription may have selected events before, and no longer does.
            only_watches: For a display in a process that also publishes: an interruption is no warning, since the
                publisher warns of the outage.
        """

    def archive_end(self, name: str, *, after: int | None = None) -> ArchiveEnd | None:
        """
        Return the present end of the archive, for comparing what the queue of a named subscription has delivered.

        Args:
            name: The name of the subscription.
            after: The offset of the last message that was compared before.

        Returns:
            None if the subscription cannot lose an event without its receiver counting it.

        Raises:
            BusError: The broker cannot be used.
        """

    def read_back(self, patterns: Iterable[str], *, since: datetime | None = None) -> Batches:
        """
        Yield the messages that the bus has, whose routing keys match one of the patterns, as far as the caller reads.

        The newest batch comes first. Within a batch the oldest message comes first. A batch may be empty. Messages that
        arrive during the reading are not included.

        Args:
            patterns: As for `subscribe`.
            since: The messages that reached the bus at this time or later, and perhaps a few from before that.

        Raises:
            BusError: The broker cannot be used; also while it is read.
        """
