"""
Reading and removing the pending messages of one source: the journal or the queue in memory.

Not here: sending, and the broker's answers (delivery), and the messages that a publisher hands over (handover).
"""

import math
import time
from collections import deque
from collections.abc import Collection
from typing import Protocol

from dkist_processing_core.delivery.handover import Handover
from dkist_processing_core.delivery.refusals import Refusals
from dkist_processing_core.journal import Entry

# The first read has few messages, since each may have 64 KiB; the next ones have as many as fit in so many bytes. A
# read may have to wait until a publisher of this process has synced its transaction, so few large reads are faster.
_FIRST_READ, _LARGEST_READ = 100, 500
_BYTES_OF_A_READ = 4 * 1024 * 1024
# For how long other processes' messages may wait while this process appends some.
_LONGEST_REST_SECONDS = 0.25
# A removal may have to wait as a read does. After a kill, messages that were not removed are sent again.
_LARGEST_REMOVAL, _LONGEST_UNREMOVED_SECONDS = 500, 0.25


class BacklogSource(Protocol):
    """Pending messages, in the order of their numbers: a journal or the queue in memory."""

    file: tuple[int, int] | None
    """The identity of its file: device and inode number."""
    unreachable_until: float
    """Time (seconds since 1970) before which the broker is expected to be unreachable."""

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """Return up to `limit` messages after number `after`, without those for the exchanges in `without`."""

    def last(self) -> int:
        """Return the number of the message that was appended last; 0 if none was ever appended."""

    def remove_confirmed(self, seqs: Collection[int], /) -> None:
        """Remove the messages that the broker has confirmed."""

    def record_refusal(self, seq: int, reason: str, /, *, max_tries: int) -> bool:
        """Count a refusal of one message; set it aside after `max_tries`. Return True if it is set aside."""


class Backlog:
    """The messages that one drainer still has to send from one source, over all its connections."""

    def __init__(self, source: BacklogSource, refusals: Refusals, handover: Handover | None = None) -> None:
        """Start before the first message; `handover` may hold some messages of the source."""
        self.source = source
        self.refusals = refusals
        self._handover = handover
        self._looked_at = -math.inf
        self._held: frozenset[str] = frozenset()
        self._last = 0
        self._read_up_to = 0
        self._limit = _FIRST_READ
        self.is_at_end = False
        """Whether `next` has returned None because there was no further message."""
        self._skipped: tuple[frozenset[str], int] = (frozenset(), 0)
        self._ahead: deque[Entry] = deque()
        self._unremoved_since = math.inf
        self.unremoved: set[int] = set()
        """The confirmed messages that were not removed from the source yet."""

    def begin(self) -> None:
        """Read from the beginning: refused messages may be due by then."""
        self._ahead.clear()
        self._looked_at = -math.inf
        if self._handover is not None:
            self._handover.open(self.source.file)
        self._held, self._read_up_to, self._last = self.refusals.held_exchanges, 0, 0
        if self._held:
            # Messages for held exchanges are skipped only once, however many there are.
            held, skipped_up_to = self._skipped
            self._read_up_to = skipped_up_to if held == self._held and not self.refusals.has_paused else 0
            self._last = self.source.last()

    def end(self) -> None:
        """Record that all due messages were read."""
        self._skipped = self._held, self._last

    def next(self, *, is_alone: bool) -> Entry | None:
        """
        Return the next message to be sent; None at the end, or before a message that has to be sent alone.

        None also means that a message is about to be handed over: a read would have to wait for its transaction.
        """
        self.is_at_end = False
        while not self._ahead:
            entries = self._take() or self._read()
            if not entries:
                return None
            self._read_up_to = entries[-1].seq
            self._ahead.extend(
                entry
                for entry in self.refusals.due(entries)
                if entry.seq not in self.unremoved and entry.message.exchange not in self._held
            )
        if not is_alone and self.refusals.goes_alone(self._ahead[0]):
            return None
        return self._ahead.popleft()

    def _take(self) -> list[Entry]:
        entries = [] if self._handover is None else self._handover.take(self._read_up_to)
        if entries:
            self._looked_at = time.monotonic()
        return entries

    def _read(self) -> list[Entry]:
        limit = self._limit
        if self._handover is not None:
            if self._handover.is_expecting and time.monotonic() < self._looked_at + _LONGEST_REST_SECONDS:
                return []
            if (first := self._handover.first) is not None:
                limit = min(limit, max(1, first - 1 - self._read_up_to))
        entries = self.source.pending(self._read_up_to, limit, without=self._held)
        self.is_at_end, self._looked_at = not entries, time.monotonic()
        if entries:
            size = sum(len(entry.message.body) for entry in entries)
            self._limit = min(_LARGEST_READ, 1 + len(entries) * _BYTES_OF_A_READ // max(1, size))
        return entries

    def confirm(self, seqs: Collection[int], *, is_last: bool) -> bool:
        """Note confirmed messages, and return True if they were removed: many at once, the `is_last` ones always."""
        self.unremoved.update(seqs)
        if not self.unremoved:
            return False
        now = time.monotonic()
        self._unremoved_since = min(self._unremoved_since, now)
        is_due = len(self.unremoved) >= _LARGEST_REMOVAL or now > self._unremoved_since + _LONGEST_UNREMOVED_SECONDS
        # Messages in memory are moved to the disk as soon as possible, and sent from there.
        if is_due or is_last or self._handover is None:
            self.remove()
        return not self.unremoved

    def remove(self, confirmed: Collection[int] = ()) -> None:
        """Remove confirmed messages; record those that cannot be removed, so that they are not sent again."""
        self.unremoved.update(confirmed)
        if self.unremoved:
            self.source.remove_confirmed(self.unremoved)
            self.unremoved.clear()
        self._unremoved_since = math.inf

    def close(self) -> None:
        """End the handover, and remove the confirmed messages."""
        if self._handover is not None:
            self._handover.close()
        self.remove()
