"""
The receiver of a subscription with a name to the embedded journal.

Not here: subscriptions without a name (unnamed_receiver), and the order of reading (receiver).
"""

import functools
import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from dkist_processing_core.bus.embedded.receiver import BATCH, POLL_SECONDS, JournalReceivedMessage, JournalReceiver
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
        # Dead letters that an operator has retried: to be received, and received without an answer yet.
        self._retries: deque[Entry] = deque()
        self._retrying: set[int] = set()
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
            entry = super()._next()
        except JournalDamagedError:
            self._reopen()
            entry = super()._next()
        return self._next_retry() if entry is None else entry

    def _next_retry(self) -> Entry | None:
        """Return the next dead letter that an operator has retried; new messages come before it."""
        if not self._retries:
            return None
        entry = self._retries.popleft()
        self._retrying.add(entry.seq)
        return entry

    def backlog(self) -> int | None:
        """Return how many messages of any kind follow the position; None while another receiver of the name reads."""
        return max(0, self._journal.last() - self._position) if self._is_active else None

    def receive_batch(self, most: int, timeout: float) -> "list[JournalReceivedMessage]":
        """Return the next events; a retried dead letter is a separate batch, since it has no place in their order."""
        batch: list[JournalReceivedMessage] = []
        while len(batch) < most and (received := self.receive(0.0 if batch else timeout)) is not None:
            if received.entry.seq in self._retrying and batch:
                self._retrying.discard(received.entry.seq)
                self._retries.appendleft(received.entry)
                break
            batch.append(received)
            if received.entry.seq in self._retrying:
                break
        return batch

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
        waiting = self._retrying | {entry.seq for entry in self._retries}
        self._retries.extend(entry for entry in self._subscription.retried() if entry.seq not in waiting)
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
        if entry.seq not in self._retrying:
            self._subscription.advance(entry.seq)
            return
        self._retrying.discard(entry.seq)
        if reason is None:
            self._subscription.end_retry(entry)

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
