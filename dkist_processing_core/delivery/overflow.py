"""
Displaced messages, while the journal cannot be used: in a spare journal, and if that fails, in memory.

Not here: when they are moved into the journal (shelf), and the file of a spare journal (journal.spare).
"""

import time
from collections.abc import Iterator, Sequence

from dkist_processing_core.bus import Bus
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import Spare, take_over_spare
from dkist_processing_core.text.internal_errors import log_internal_error_once

_MAX_IN_MEMORY = 10_000
# The shortest time limit of a move: with less it could never succeed.
_MOVE_SECONDS = 0.05
_MEMORY = "memory"


class Overflow:
    """The displaced messages of one process, in order. The caller must exclude other threads."""

    def __init__(self, bus: Bus) -> None:
        """Start without a message and without a file."""
        self._bus = bus
        self._spare: Spare | None = None
        self._place: str | None = None
        self.memory = InMemoryQueue(_MAX_IN_MEMORY)
        """The messages that could not be written to disk."""

    @property
    def is_empty(self) -> bool:
        """Whether all messages are in the journal."""
        return self._spare is None and not len(self.memory)

    @property
    def spare(self) -> Spare | None:
        """The spare journal; None if there is none, or if other code of this process has closed it."""
        if self._spare is not None and self._spare.is_lost:
            self._spare = None
        return self._spare

    def add(self, messages: Sequence[Message], *, once: bool, note: str | None) -> str | None:
        """Store messages in order; return the place if they are the first displaced ones since the journal worked."""
        place = _MEMORY
        try:
            spare = self.spare
            if spare is None and self._place != _MEMORY:
                spare = self._spare = self._bus.open_spare()
            if spare is not None:
                for was_once, entries in self.memory.groups():
                    spare.journal.append([entry.message for entry in entries], once=was_once)
                    self.memory.remove_confirmed(entry.seq for entry in entries)
                spare.journal.append(messages, once=once, note=note)
                place, messages = str(spare.journal.path), ()
        except Exception as error:  # noqa: BLE001 - an error of this package loses no event either
            if not isinstance(error, JournalError):
                log_internal_error_once("no spare journal is used", error)
            place = _MEMORY
        # The drainer sends these messages from memory, and the journal does not count them.
        self.memory.add(messages, once=once)
        is_first, self._place = self._place is None, place
        return place if is_first else None

    def move_to(self, journal: Journal) -> Iterator[list[int]]:
        """Move all messages into the journal; yield their first and last number there after each step."""
        if (spare := self.spare) is not None:
            before = journal.last()
            take_over_spare(journal, spare, until=time.monotonic() + max(journal.patience, _MOVE_SECONDS))
            self._spare = None
            yield [before + 1, journal.last()]
        for was_once, entries in self.memory.groups():
            seqs = journal.append([entry.message for entry in entries], once=was_once)
            self.memory.remove_confirmed(entry.seq for entry in entries)
            yield seqs

    def end(self) -> None:
        """Note that the journal works again."""
        self._place = None

    def close(self) -> None:
        """Close the spare journal; the next process takes over its messages."""
        if self._spare is not None:
            self._spare.close()
        self._spare = None
