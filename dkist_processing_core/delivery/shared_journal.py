"""
The shared journal of one publisher: opened, and opened again when its file was removed, replaced or damaged.

It also records which rows are this publisher's. Not here: storing messages while it cannot be used (shelf).
"""

import contextlib
import time
from collections.abc import Iterator, Sequence

from dkist_processing_core.bus import Bus
from dkist_processing_core.delivery.wait_limit import WaitLimit
from dkist_processing_core.errors import JournalDamagedError, JournalError, JournalLostError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.takeover import take_over

# For how long a read waits for a journal that could not be written to.
READ_SECONDS = 0.05


class SharedJournal:
    """The journal of a bus, opened at its first use. The caller must exclude other threads."""

    def __init__(self, bus: Bus, limit: WaitLimit) -> None:
        """Open no file. Waits are subtracted from `limit`."""
        self._bus = bus
        self._limit = limit
        self._own: tuple[int, int] | None = None
        self.journal: Journal | None = None
        """The open journal; None if it could not be opened."""
        self.finding: str | None = None
        """Why another file is the journal now; to be logged once."""

    @contextlib.contextmanager
    def in_use(self, patience: float, *, is_checked: bool) -> Iterator[Journal]:
        """
        Yield the journal, opened if necessary. All calls in this context wait at most `patience` seconds in total.

        With `is_checked`, open the journal again if its file is not at its path any more. An append checks this itself,
        by several system calls: a second check would slow down each publish.
        """
        spent = self._limit.spent
        if self.journal is not None and self.journal.was_lost:
            self.journal = None
        journal = self.journal
        if journal is None or (is_checked and not journal.is_there):
            journal = self._open(patience)
        waited = journal.waited
        journal.patience = max(0.0, patience - (self._limit.spent - spent))
        journal.limit_waits(journal.patience)
        try:
            yield journal
        finally:
            self._limit.spend(journal.waited - waited)
            # Reads wait only briefly.
            journal.patience = READ_SECONDS
            journal.limit_waits()

    def recover(self, error: Exception, patience: float) -> Exception | None:
        """Prepare to open the journal again after an error; return None if that may succeed, otherwise the reason."""
        if isinstance(error, JournalLostError):
            return None
        # Before anything is closed: if the journal's log was removed, only its open connection has the contents.
        if isinstance(error, JournalError) and self.journal is not None and not self.journal.is_there:
            try:
                self._open(patience)
            except Exception as reason:  # noqa: BLE001 - the caller reports it
                return reason
            return None
        if isinstance(error, JournalDamagedError):
            # The next opening sets the damaged file aside, and creates a new one.
            self.close()
            return None
        return error

    def _open(self, patience: float) -> Journal:
        began = time.monotonic()
        try:
            journal = self._bus.open_journal(patience=patience)
            journal.limit_waits(max(0.0, patience - journal.waited))
            self._replace_by(journal)
        except JournalError:
            self._limit.spend(min(patience, time.monotonic() - began))
            raise
        self._limit.spend(journal.waited)
        self.journal = journal
        return journal

    def _replace_by(self, journal: Journal) -> None:
        """Continue with a journal in place of the one that was open before, if there was one."""
        before = self.journal
        if before is None:
            return
        if not journal.continues(before.file):
            if before.is_nameless:
                self.finding = f"the journal {journal.path} was removed while it was in use, and is created again"
                # A removed file exists as long as a process has it open.
                take_over(journal, before)
                self._own = (1, journal.last())
            else:
                # The old file was moved, or another file system covers it, and other processes may use it: its rows
                # stay there.
                self.finding = f"the journal {journal.path} is another file now; the previous file keeps its events"
                self._own = None
        before.close()

    def count_as_own(self, seqs: Sequence[int]) -> None:
        """Treat rows as this publisher's, and all rows between them: rows of other processes are delivered as well."""
        if seqs:
            self._own = (self._own[0] if self._own else seqs[0], seqs[-1])

    def include_backlog(self) -> None:
        """Treat all rows now in the journal as this publisher's."""
        with contextlib.suppress(JournalError):
            if self.journal is not None:
                self.count_as_own([1, self.journal.last()])

    @property
    def has_own(self) -> bool:
        """Whether this publisher has appended to the journal."""
        return self._own is not None and self.journal is not None

    def holds_own(self) -> bool:
        """Return True if rows of this publisher are still pending, or if that cannot be read."""
        try:
            return self.journal is not None and self._own is not None and self.journal.holds(*self._own)
        except JournalError:
            return True

    def close(self) -> None:
        """Close the journal."""
        if self.journal is not None:
            self.journal.close()
        self.journal = None
