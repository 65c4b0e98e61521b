"""
The receiver of a subscription with a name to the embedded journal.

Not here: subscriptions without a name (unnamed_receiver), and the order of reading (receiver).
"""

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from dkist_processing_core.bus.embedded.receiver import BATCH, POLL_SECONDS, JournalReceiver
from dkist_processing_core.errors import JournalDamagedError
from dkist_processing_core.journal import Entry, Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.opening import recover_messages
from dkist_processing_core.journal.subscription import NamedSubscription
from dkist_processing_core.process import forks
from dkist_processing_core.text import counted

_WAIT_SECONDS = 10.0
logger = logging.getLogger(__name__)


class NamedReceiver(JournalReceiver):
    """A receiver with a name: the file stores its position."""

    def __init__(
        self, open_journal: Callable[[], Journal], exchange: str, patterns: tuple[str, ...], *, name: str
    ) -> None:
        """Continue at the stored position of the name; begin now if there is none."""
        super().__init__(exchange, patterns)
        self._open_journal = open_journal
        self._name = name
        self._journal = self._open()
        self._subscription = NamedSubscription(self._journal, name)
        self._end = self._journal.last()
        self._wanted = json.dumps([exchange, patterns])
        start = self._end
        if self._subscription.is_position_lost:
            start = 0
            logger.warning(
                "the position of the subscription %r is not known, because the journal %s was damaged: "
                "it begins with the oldest event, and may yield events again",
                name,
                self._journal.path,
            )
        self._position = self._subscription.position(start, self._wanted)
        self.missed = 0
        self._lock = FileLock(_lock_path(self._journal.path, name))
        self._is_active = False
        self._seen_version: int | None = None
        self._opened = [self._journal]
        self._finalizer = forks.finalize(self, functools.partial(_release, self._opened, self._lock))

    def _open(self) -> Journal:
        """Open the journal and take over damaged files first: otherwise later events would be read before theirs."""
        journal = self._open_journal()
        until = time.monotonic() + _WAIT_SECONDS
        while not recover_messages(journal) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return journal

    def _reopen(self) -> None:
        """Continue with the file that is at the journal's path now."""
        old = self._journal
        self._journal = self._opened[0] = self._open()
        self._subscription = NamedSubscription(self._journal, self._name)
        start = self._position if self._journal.continues(old.file) else 0
        old.close()
        self._position = self._subscription.position(start)
        self._end = min(self._end, self._journal.last())
        self._seen_version = None
        self._ahead.clear()

    def _next(self) -> Entry | None:
        if not self._journal.is_there:
            self._reopen()
        self._subscription.renew()
        if not self._active():
            return None
        try:
            return super()._next()
        except JournalDamagedError:
            self._reopen()
            return super()._next()

    def _active(self) -> bool:
        if not self._is_active and self._lock.acquire():
            # The receiver that was active before may have moved on since this one was opened.
            self._position = self._subscription.position(self._position, self._wanted)
            self._is_active = True
        return self._is_active

    def _more(self) -> Iterable[Entry]:
        version = self._journal.data_version()
        if version == self._seen_version:
            return []
        missed = self._subscription.missed
        if missed:
            self.missed += missed
            logger.warning(
                "the subscription %r has missed %s, which became too old before it read them",
                self._name,
                counted(missed, "event"),
            )
            # Only after the warning: if this process ended in between, the loss would stay unreported.
            self._subscription.record_reported(missed)
        entries = self._journal.read(self._position, BATCH)
        if not entries:
            # All entries were read: there are no more until the file changes.
            self._seen_version = version
        return entries

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Advance the subscription's position past an entry; dead-letter the entry first if a reason is given."""
        if not self._finalizer.alive:
            return
        if reason is not None:
            self._subscription.dead_letter(entry, reason)
        self._subscription.advance(entry.seq)

    def close(self) -> None:
        """Release the name, so that another receiver of this name can continue."""
        self._finalizer()


def _release(opened: list[Journal], lock: FileLock) -> None:
    lock.release()
    for journal in opened:
        journal.close()


def _lock_path(journal: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return journal.with_name(f"{journal.stem}.{digest}.lock")
