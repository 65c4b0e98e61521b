"""
Messages that could not be written to disk: kept in memory, in order, up to a limit.

Not here: writing them to the disk later (shelf), and delivering them from memory (delivery.delivery).
"""

import itertools
import operator
import threading
from collections.abc import Collection, Iterable

from dkist_processing_core.journal import Entry
from dkist_processing_core.journal.message import Message

# Above all numbers of a journal: `Refusals` records the numbers of both.
_FIRST = 1 << 62


class InMemoryQueue:
    """A substitute for a journal that exists as long as the process lives. Safe to use from several threads."""

    file: tuple[int, int] | None = None

    def __init__(self, limit: int, max_bytes: int = 32 * 1024 * 1024) -> None:
        """Hold up to `limit` messages and `max_bytes` of bodies in total; further messages are lost, and counted."""
        self._limit = limit
        self._room = max_bytes
        self._lock = threading.Lock()
        self._held: dict[int, tuple[Message, bool]] = {}
        self._numbers = itertools.count(_FIRST)
        self._tries: dict[int, int] = {}
        self.lost = 0
        self.unreachable_until = 0.0

    def __len__(self) -> int:
        """Return how many messages are held."""
        return len(self._held)

    def add(self, messages: Iterable[Message], *, once: bool) -> None:
        """Add messages; `once` is stored for the journal that receives them later (`Journal.append`)."""
        with self._lock:
            for message in messages:
                if len(self._held) < self._limit and len(message.body) <= self._room:
                    self._held[next(self._numbers)] = message, once
                    self._room -= len(message.body)
                else:
                    self.lost += 1

    def groups(self) -> list[tuple[bool, list[Entry]]]:
        """Return the held messages in order, grouped by runs of equal `once`."""
        if not self._held:
            # The usual case, checked at each event that is published.
            return []
        with self._lock:
            held = [(once, Entry(number, message)) for number, (message, once) in self._held.items()]
        return [
            (once, [entry for _, entry in alike]) for once, alike in itertools.groupby(held, key=operator.itemgetter(0))
        ]

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """Return up to `limit` messages after number `after`, without those for the exchanges in `without`."""
        with self._lock:
            return list(
                itertools.islice(
                    (
                        Entry(number, message)
                        for number, (message, _) in self._held.items()
                        if number > after and message.exchange not in without
                    ),
                    limit,
                )
            )

    def last(self) -> int:
        """Return the number of the message that was added last; 0 if none is held."""
        with self._lock:
            return max(self._held, default=0)

    def remove_confirmed(self, numbers: Iterable[int]) -> None:
        """Remove messages that the bus has confirmed or that are on disk."""
        with self._lock:
            for number in numbers:
                self._drop(number)

    def record_refusal(self, number: int, reason: str, *, max_tries: int) -> bool:  # noqa: ARG002 - as a journal's
        """Count a refusal of one message; drop it after `max_tries`. Return True if it was dropped."""
        with self._lock:
            self._tries[number] = tries = self._tries.get(number, 0) + 1
            if tries < max_tries:
                return False
            self._drop(number)
            self.lost += 1
            return True

    def _drop(self, number: int) -> None:
        message, _ = self._held.pop(number, (None, None))
        self._room += len(message.body) if message is not None else 0
        self._tries.pop(number, None)

    def clear(self) -> int:
        """Remove all held messages, and return how many messages were lost in total."""
        with self._lock:
            lost, self.lost = self.lost + len(self._held), 0
            self._held.clear()
        return lost
