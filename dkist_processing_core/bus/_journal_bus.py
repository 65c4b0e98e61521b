"""
The embedded bus: one journal file on this host, which is also its own archive.

Not here: the file's format (_journal).
"""

import functools
import hashlib
import time
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from dkist_processing_core import forks
from dkist_processing_core.bus._bus import topic_matches
from dkist_processing_core.bus._journal import BUSY_SECONDS, Entry, Journal
from dkist_processing_core.bus._locks import FileLock
from dkist_processing_core.bus._message import Message
from dkist_processing_core.bus._place import open_folder, place
from dkist_processing_core.bus._spare import Spare, adopt
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

FILE = "embedded.db"
KEPT_SECONDS = 7 * 24 * 3600
_POLL_SECONDS = 0.02
_BATCH = 200
# On a task's way: what is left over the next process takes.
_ADOPTION_SECONDS = 0.2


class JournalBus:
    """Publish by appending, consume by reading on."""

    is_remote = False

    def __init__(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """Name the file; nothing is opened yet."""
        self._place = place(settings)
        self.journal_path = self._place.folder / FILE
        self.where = f"the embedded journal {self.journal_path}"
        self.event_exchange = settings.isb_event_exchange
        self.failure_exchange = settings.isb_exchange

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the file, without what is older than a week: as long as the broker's archive keeps events."""
        open_folder(self._place)
        journal = Journal.open(self.journal_path, synced=synced, destination="embedded", patience=patience)
        adopt(journal, seconds=_ADOPTION_SECONDS)
        journal.prune(time.time() - KEPT_SECONDS)
        return journal

    def open_spare(self) -> Spare:
        """Make a spare journal beside the file."""
        return Spare.open(open_folder(self._place) / FILE)

    def subscribe(
        self, patterns: Iterable[str], *, name: str | None = None, replay: bool | datetime = False
    ) -> "JournalReceiver":
        """Read events from the file; one process at a time reads under a name, others of that name stand by."""
        return JournalReceiver(
            self.open_journal(), exchange=self.event_exchange, patterns=tuple(patterns), name=name, replay=replay
        )


class JournalReceiver:
    """A place in the file, and what lies behind it."""

    def __init__(
        self, journal: Journal, *, exchange: str, patterns: tuple[str, ...], name: str | None, replay: bool | datetime
    ) -> None:
        """Take the place: where the name left off, else now, or with `replay` the beginning, or a time's."""
        self._journal = journal
        self._exchange = exchange
        self._patterns = patterns
        self._name = name
        if isinstance(replay, datetime):
            start = journal.last_before(replay.timestamp())
        else:
            start = 0 if replay else journal.last()
        self._end = journal.last()
        self._position = start if name is None else journal.position(name, start)
        self._lock = None if name is None else FileLock(_lock_path(journal.path, name))
        self._is_active = name is None
        self._ahead: deque[Entry] = deque()
        self._seen_version: int | None = None
        self._finalizer = forks.finalize(self, functools.partial(_let_go, journal, self._lock))

    def has_caught_up(self, _: float) -> bool:
        """Say that it has: `receive` reads over all that was not asked for before it returns."""
        return True

    def receive(self, timeout: float) -> "JournalDelivery | None":
        """Return the next event, or None where there is none within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            if self._name is not None:
                self._journal.renew(self._name)
            entry = self._next() if self._active() else None
            if entry is not None:
                return JournalDelivery(entry, weakref.ref(self), is_new=entry.seq > self._end)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(_POLL_SECONDS, remaining))

    def _active(self) -> bool:
        if not self._is_active and self._lock is not None and self._name is not None and self._lock.acquire():
            # Whoever was active before may have moved on since this receiver was opened.
            self._position = self._journal.position(self._name, self._position)
            self._is_active = True
        return self._is_active

    def _next(self) -> Entry | None:
        while True:
            while self._ahead:
                entry = self._ahead.popleft()
                self._position = entry.seq
                key = entry.message.routing_key
                is_event = entry.message.exchange == self._exchange
                if is_event and any(topic_matches(pattern, key) for pattern in self._patterns):
                    return entry
            version = self._journal.data_version()
            if version == self._seen_version:
                return None
            self._ahead.extend(self._journal.read(self._position, _BATCH))
            if len(self._ahead) < _BATCH:
                # Read to the end: until the file changes there is nothing more.
                self._seen_version = version
            if not self._ahead:
                return None

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Move the subscription's place behind an entry, which is buried where a reason says so."""
        if self._name is None or not self._finalizer.alive:
            return
        if reason is not None:
            self._journal.bury(self._name, entry, reason)
        self._journal.advance(self._name, entry.seq)

    def close(self) -> None:
        """Let another of this name go on."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()


@dataclass(slots=True)
class JournalDelivery:
    """An event from the file; it does not keep its receiver, which others of its name may wait for."""

    entry: Entry
    receiver: weakref.ref[JournalReceiver]
    is_new: bool
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.entry.message

    def acknowledge(self, wait: float = 0.0) -> None:  # noqa: ARG002 - it is done at once
        """Move the subscription's place behind this event."""
        self._settle(None)

    def bury(self, reason: str) -> None:
        """Keep the event among the subscription's dead letters."""
        self._settle(reason)

    def _settle(self, reason: str | None) -> None:
        receiver = self.receiver()
        if not self.is_settled and receiver is not None:
            self.is_settled = True
            receiver.settle(self.entry, reason)


def _let_go(journal: Journal, lock: FileLock | None) -> None:
    if lock is not None:
        lock.release()
    journal.close()


def _lock_path(journal: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return journal.with_name(f"{journal.stem}.{digest}.lock")
