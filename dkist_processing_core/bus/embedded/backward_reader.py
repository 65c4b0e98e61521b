"""
Reading past events from a journal backwards, from the newest on, as far as the caller needs.

Not here: subscriptions (unnamed_receiver, named_receiver), and the file format (journal).
"""

from datetime import datetime
from pathlib import Path

from dkist_processing_core.bus.embedded.unnamed_receiver import UnnamedReceiver
from dkist_processing_core.bus.interface import FEWEST_AT_ONCE, MOST_AT_ONCE, Batches
from dkist_processing_core.errors import JournalDamagedError
from dkist_processing_core.journal import Entry, Journal
from dkist_processing_core.journal.message import Message


class BackwardReader(UnnamedReceiver):
    """A reader of the events that a file has when this is created. It changes nothing and keeps no file open."""

    def __init__(self, path: Path, exchange: str, patterns: tuple[str, ...], *, since: datetime | None = None) -> None:
        """Find the last row of the file, and the first of those that reached it at `since` or later."""
        super().__init__(path, exchange, patterns, replay=since or True)

    def batches(self) -> Batches:
        """Yield the requested events in batches: the newest batch first, and within a batch the oldest event first."""
        # Removed rows leave gaps, so a range of numbers has at most as many rows as numbers.
        upper, size = self._end, FEWEST_AT_ONCE
        while upper > self._position:
            try:
                entries = self._look(lambda journal: self._range(journal, upper, size))  # noqa: B023 - called at once
            except JournalDamagedError:
                yield self._readable(upper)
                return
            if entries is None:
                return
            yield [entry.message for entry in entries if self._takes(entry)]
            upper, size = upper - size, min(2 * size, MOST_AT_ONCE)

    def _range(self, journal: Journal, upper: int, size: int) -> list[Entry] | None:
        """Return the last `size` rows up to the number `upper`; None if the file was replaced."""
        if (journal.file, self._id_of(journal)) != (self._file, self._id):
            return None
        self._position = max(self._position, (journal.first() or self._end + 1) - 1)
        after = max(self._position, upper - size)
        return [entry for entry in journal.read(after, upper - after) if entry.seq <= upper]

    def _readable(self, upper: int) -> list[Message]:
        """Return the readable events up to the number `upper`: a damaged file is read from its beginning."""
        found = []
        while (entry := self._next()) is not None and entry.seq <= upper:
            found.append(entry.message)
        return found
