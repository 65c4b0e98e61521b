"""
The receivers of the in-memory bus, with and without a name.

Not here: the order of reading, which they share with the embedded bus (bus.embedded.receiver), and the messages
(in_memory_journal).
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from dkist_processing_core.bus.embedded.receiver import BATCH, JournalReceiver
from dkist_processing_core.bus.interface import Offset
from dkist_processing_core.journal import Entry
from dkist_processing_core.journal.message import Message
from dkist_processing_core.testing.in_memory_journal import InMemoryJournal


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a named subscription could not use, with the reason."""

    message: Message
    reason: str


@dataclass(slots=True)
class NamedPosition:
    """What the bus stores under the name of a subscription."""

    position: int
    dead_letters: list[DeadLetter] = field(default_factory=list)
    active: "weakref.ref[NamedInMemoryReceiver] | None" = None
    """The receiver that reads under this name; others wait until it is closed or unused."""


class InMemoryReceiver(JournalReceiver):
    """A receiver without a name."""

    missed = 0

    def __init__(
        self,
        journal: InMemoryJournal,
        exchange: str,
        patterns: tuple[str, ...],
        *,
        replay: bool | datetime | Offset = False,
    ) -> None:
        """Begin now, or with `replay` at the first message, at a time or at a position in the archive, from 0."""
        super().__init__(exchange, patterns)
        self._journal = journal
        self._end = journal.last()
        self._position = self._end
        if isinstance(replay, datetime):
            self._position = journal.last_before(replay.timestamp())
        elif isinstance(replay, Offset):
            self._position = replay.number
        elif replay:
            self._position = 0

    def _more(self) -> Iterable[Entry]:
        return self._journal.read(self._position, BATCH)


class NamedInMemoryReceiver(InMemoryReceiver):
    """A receiver with a name: the bus stores its position. Only one at a time reads under a name."""

    def __init__(
        self, journal: InMemoryJournal, exchange: str, patterns: tuple[str, ...], named: NamedPosition
    ) -> None:
        """Continue at the stored position."""
        super().__init__(journal, exchange, patterns)
        self._named = named
        self._is_closed = False
        self._is_active = False

    def backlog(self) -> int | None:
        """Return how many messages of any kind follow the position; None while another receiver of the name reads."""
        return self._journal.last() - self._position if self._takes_turn() else None

    def _more(self) -> Iterable[Entry]:
        return super()._more() if self._takes_turn() else ()

    def _takes_turn(self) -> bool:
        """Return True if this receiver reads under the name; it begins to when no other receiver does."""
        if not self._is_active and not self._is_closed:
            other = self._named.active() if self._named.active is not None else None
            if other is None:
                self._named.active = weakref.ref(self)
                self._position = self._named.position
                self._is_active = True
        return self._is_active

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Advance the position of the name past an entry; dead-letter the entry first if a reason is given."""
        if self._is_closed:
            return
        if reason is not None:
            self._named.dead_letters.append(DeadLetter(entry.message, reason))
        self._named.position = max(self._named.position, entry.seq)

    def close(self) -> None:
        """Release the name, so that another receiver of this name can continue."""
        if self._is_active:
            self._named.active = None
        self._is_active, self._is_closed = False, True
        self._ahead.clear()
