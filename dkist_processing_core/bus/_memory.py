"""
What could not be put on disk: in memory, in order, up to a limit.

Not here: who puts it on disk later (publisher), or delivers it from here (drain).
"""

import itertools
import operator
import threading
from collections.abc import Collection, Iterable

from dkist_processing_core.bus._journal import Entry
from dkist_processing_core.bus._message import Message

# Above all that a journal numbers, so that a number says where a message is.
_FIRST = 1 << 62


class Memory:
    """A journal's stand-in for as long as the process lives. Safe to use from several threads."""

    def __init__(self, limit: int, max_bytes: int = 32 * 1024 * 1024) -> None:
        """Hold up to `limit` messages, and bodies of up to `max_bytes`; what comes after them is lost, and counted."""
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
        """Hold messages; `once` is kept for the journal that gets them (`Journal.append`)."""
        with self._lock:
            for message in messages:
                if len(self._held) < self._limit and len(message.body) <= self._room:
                    self._held[next(self._numbers)] = message, once
                    self._room -= len(message.body)
                else:
                    self.lost += 1

    def groups(self) -> list[tuple[bool, list[Entry]]]:
        """Return what is held, in order, together as far as `once` is the same."""
        if not self._held:
            # As nearly always, for each event that is published.
            return []
        with self._lock:
            held = [(once, Entry(number, message)) for number, (message, once) in self._held.items()]
        return [
            (once, [entry for _, entry in alike]) for once, alike in itertools.groupby(held, key=operator.itemgetter(0))
        ]

    def pending(self, after: int, limit: int, *, without: Collection[str] = ()) -> list[Entry]:
        """Return up to `limit` messages behind the place `after`, and not for the exchanges of `without`."""
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

    def remove_confirmed(self, numbers: Iterable[int]) -> None:
        """Let go of what the bus, or the disk, has."""
        with self._lock:
            for number in numbers:
                self._drop(number)

    def note_refusal(self, number: int, reason: str, *, max_tries: int) -> bool:  # noqa: ARG002 - as a journal's
        """Count a refusal of one message; the last of `max_tries` gives it up. Return whether it was."""
        with self._lock:
            self._tries[number] = tries = self._tries.get(number, 0) + 1
            if tries < max_tries:
                return False
            self._drop(number)
            self.lost += 1
            return True

    def __contains__(self, number: int) -> bool:
        """Say whether a number is one of here, and not of a journal."""
        return number >= _FIRST

    def _drop(self, number: int) -> None:
        message, _ = self._held.pop(number, (None, None))
        self._room += len(message.body) if message is not None else 0
        self._tries.pop(number, None)

    def clear(self) -> int:
        """Let go of all that is held, and return how many messages were lost altogether."""
        with self._lock:
            lost, self.lost = self.lost + len(self._held), 0
            self._held.clear()
        return lost
