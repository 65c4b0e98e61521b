"""
The journal of the in-memory bus: a list of messages, with the methods that a publisher and a receiver call.

Not here: the journal of the other buses, which is a file (journal).
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from dkist_processing_core.journal import Books, Entry
from dkist_processing_core.journal.message import Message


class InMemoryJournal:
    """
    The messages of one in-memory bus, in the order in which they reached it. Safe to use from several threads.

    It has the methods of `journal.Journal` that publishers and receivers use, and is never busy, lost or damaged.
    """

    file = (0, 0)
    is_there = True
    was_lost = False
    waited = 0.0
    patience = 0.0

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Start without messages."""
        self.path = path
        self._clock = clock
        self._entries: list[Entry] = []
        self._appended: list[float] = []
        self._notes: set[str] = set()
        self._lock = threading.Lock()

    def append(self, messages: Iterable[Message], *, once: bool = False, note: str | None = None) -> list[int]:
        """Append messages and return their numbers; with `once`, without those whose ids were stored before."""
        with self._lock:
            if note is not None:
                self._notes.add(note)
            taken = [message for message in messages if not once or self._is_first(message.properties.message_id)]
            seqs = list(range(self.last() + 1, self.last() + 1 + len(taken)))
            self._entries += map(Entry, seqs, taken)
            self._appended += [self._clock()] * len(taken)
        return seqs

    def _is_first(self, message_id: str) -> bool:
        is_first = message_id not in self._notes
        self._notes.add(message_id)
        return is_first

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` messages after number `after`, in order."""
        return self._entries[after : after + limit]

    def last(self) -> int:
        """Return the number of the message that was appended last; 0 if none was ever appended."""
        return len(self._entries)

    def last_before(self, moment: float) -> int:
        """Return the number of the message before the first one that was appended at a time or later."""
        return next((at for at, appended in enumerate(self._appended) if appended >= moment), self.last())

    def remember(self, message_id: str) -> None:
        """Store an id without a message."""
        self._notes.add(message_id)

    def remembers(self, message_id: str) -> bool:
        """Return True if an id was stored, by `remember` or with a message that is sent once."""
        return message_id in self._notes

    def books(self) -> Books:
        """Return the counts of the messages; all are kept, as on the embedded bus."""
        return Books(published=self.last(), confirmed=0, pending=self.last(), set_aside=0)

    def limit_waits(self, patience: float | None = None) -> None:
        """Do nothing: no call waits."""

    def close(self) -> None:
        """Do nothing: the messages belong to the bus."""

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the messages belong to the bus."""
