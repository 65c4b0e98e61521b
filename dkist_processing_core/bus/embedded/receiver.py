"""
Reading events from the embedded journal in order: the base class of receivers with and without a name.

Not here: the position at which a subscription begins (unnamed_receiver, named_receiver), and the file format
(journal).
"""

import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from dkist_processing_core.journal import Entry
from dkist_processing_core.journal.message import Message, topic_matches

POLL_SECONDS = 0.02
BATCH = 200
"""How many entries are read from the file at once."""


class JournalReceiver(ABC):
    """A position in the file, and the entries that were read ahead of it."""

    is_connected = True
    """A file needs no connection."""
    connections = 1

    def __init__(self, exchange: str, patterns: tuple[str, ...]) -> None:
        """Store the exchange and the patterns of the requested events; the position is the beginning of the file."""
        self._exchange = exchange
        self._patterns = patterns
        self._position = 0
        self._end = 0
        self._ahead: deque[Entry] = deque()

    def backlog(self) -> int | None:
        """Return None: without a name there is no position that outlives the receiver."""
        return None

    def has_caught_up(self, _: float) -> bool:
        """Return True: `receive` skips all events that were not requested before it returns."""
        return True

    def receive(self, timeout: float) -> "JournalReceivedMessage | None":
        """Return the next event; None if none arrives within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            entry = self._next()
            if entry is not None:
                return JournalReceivedMessage(entry, weakref.ref(self), is_new=entry.seq > self._end)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(POLL_SECONDS, remaining))

    def receive_batch(self, most: int, timeout: float) -> "list[JournalReceivedMessage]":
        """Return the next events, at most `most`; none if none arrives within `timeout` seconds."""
        batch: list[JournalReceivedMessage] = []
        while len(batch) < most and (received := self.receive(0.0 if batch else timeout)) is not None:
            batch.append(received)
        return batch

    def _next(self) -> Entry | None:
        while True:
            while self._ahead:
                entry = self._ahead.popleft()
                self._position = entry.seq
                if self._takes(entry):
                    return entry
            self._ahead.extend(self._more())
            if not self._ahead:
                return None

    def _takes(self, entry: Entry) -> bool:
        """Return True if an entry is a requested event."""
        key = entry.message.routing_key
        is_event = entry.message.exchange == self._exchange
        return is_event and any(topic_matches(pattern, key) for pattern in self._patterns)

    @abstractmethod
    def _more(self) -> Iterable[Entry]:
        """Return the next batch of entries after the position."""

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Settle an entry: acknowledge it, or dead-letter it if a reason is given."""

    def close(self) -> None:
        """End the subscription."""

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()


@dataclass(slots=True)
class JournalReceivedMessage:
    """An event from the file. It does not keep its receiver alive, because other receivers of that name may wait."""

    entry: Entry
    receiver: "weakref.ref[JournalReceiver]"
    is_new: bool
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.entry.message

    @property
    def position(self) -> int:
        """The number of the message in the file."""
        return self.entry.seq

    def acknowledge(self, wait: float = 0.0, *, with_earlier: bool = False) -> None:  # noqa: ARG002 - it never waits
        """Advance the subscription's position past this event, and therefore past all earlier ones."""
        self._settle(None)

    def dead_letter(self, reason: str) -> None:
        """Dead-letter the event with a reason, and acknowledge it."""
        self._settle(reason)

    def _settle(self, reason: str | None) -> None:
        receiver = self.receiver()
        if not self.is_settled and receiver is not None:
            self.is_settled = True
            receiver.settle(self.entry, reason)
