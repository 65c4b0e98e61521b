"""
The shared journal as one publisher uses it: opened, and opened again when its file was removed, replaced or damaged.

It also knows which rows of the journal are this publisher's. Not here: what is done while it cannot be used (shelf).
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
    """The journal of a bus, opened when it is needed first. The caller must exclude other threads."""

    def __init__(self, bus: Bus, limit: WaitLimit) -> None:
        """Open nothing yet; waits are subtracted from `limit`."""
        self._bus = bus
        self._limit = limit
        self._own: tuple[int, int] | None = None
        self.journal: Journal | None = None
        """The open journal; None if it could not be opened."""
        self.finding: str | None = None
        """Why the journal is another one now, to be logged once."""

    @contextlib.contextmanager
    def in_use(self, patience: float, *, is_checked: bool) -> Iterator[Journal]:
        """
        Lend the journal, opened if necessary; all calls in this context wait at most `patience` seconds together.

        With `is_checked` a file that is not at its path any more is opened again. An append checks this itself, by
        several system calls: a second check would slow down each publish.
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
        """Prepare to open the journal again after an error; return None if that may help, else the reason why not."""
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
            # Opening it again creates a new one, and the damaged file is set aside then.
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
        """Make a journal continue the one that was open before, if there was one."""
        before = self.journal
        if before is None:
            return
        if not journal.continues(before.file):
            if before.is_nameless:
                self.finding = f"the journal {journal.path} was removed while it was in use, and is made anew"
                # A removed file exists as long as a process has it open.
                take_over(journal, before)
                self._own = (1, journal.last())
            else:
                # The old file was moved, or another file system covers it, and other processes may use it: its rows
                # stay there.
                self.finding = f"the journal {journal.path} is another file now; the one before keeps what it holds"
                self._own = None
        before.close()

    def count_as_own(self, seqs: Sequence[int]) -> None:
        """Count rows as this publisher's, and all rows between them: those of other processes are delivered too."""
        if seqs:
            self._own = (self._own[0] if self._own else seqs[0], seqs[-1])

    def include_backlog(self) -> None:
        """Count all rows as this publisher's that are in the journal by now."""
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
