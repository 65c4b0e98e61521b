"""
Receivers of events from the embedded journal: with a name, whose position the file stores, and without a name.

Not here: the file's format (_journal).
"""

import contextlib
import functools
import hashlib
import json
import logging
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self, TypeVar

from dkist_processing_core.errors import JournalDamagedError, JournalEmptyError
from dkist_processing_core.journal import Entry, Journal, versions
from dkist_processing_core.journal.ages import last_before
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.mending import damaged_of, take_over_damaged
from dkist_processing_core.journal.message import Message, topic_matches
from dkist_processing_core.process import forks

_POLL_SECONDS = 0.02
_BATCH = 200
# Two changes of a file within this period may get the same modification time.
_COARSE_SECONDS = 0.1
_WAIT_SECONDS = 10.0
_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)


class _Reading(ABC):
    """A position in the file, and the entries that were read ahead of it."""

    def __init__(self, exchange: str, patterns: tuple[str, ...]) -> None:
        self._exchange = exchange
        self._patterns = patterns
        self._position = 0
        self._end = 0
        self._ahead: deque[Entry] = deque()

    def has_caught_up(self, _: float) -> bool:
        """Return True: `receive` skips all events that were not requested before it returns."""
        return True

    def receive(self, timeout: float) -> "JournalDelivery | None":
        """Return the next event; None if none arrives within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            entry = self._next()
            if entry is not None:
                return JournalDelivery(entry, weakref.ref(self), is_new=entry.seq > self._end)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(_POLL_SECONDS, remaining))

    def _next(self) -> Entry | None:
        while True:
            while self._ahead:
                entry = self._ahead.popleft()
                self._position = entry.seq
                key = entry.message.routing_key
                is_event = entry.message.exchange == self._exchange
                if is_event and any(topic_matches(pattern, key) for pattern in self._patterns):
                    return entry
            self._ahead.extend(self._more())
            if not self._ahead:
                return None

    @abstractmethod
    def _more(self) -> Iterable[Entry]:
        """Return the next batch of entries after the position."""

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Settle an entry: acknowledge it, or dead-letter it if a reason is given."""

    def close(self) -> None:
        """End the subscription."""

    def __enter__(self) -> Self:
        """Return the receiver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the subscription."""
        self.close()


class JournalReader(_Reading):
    """A receiver without a name: it reads the file after each change, changes nothing, and keeps no file open."""

    missed = 0

    def __init__(
        self, path: Path, exchange: str, patterns: tuple[str, ...], *, replay: bool | datetime = False
    ) -> None:
        """Begin now, or with `replay` at the beginning of the file or at a time."""
        super().__init__(exchange, patterns)
        self._path = path
        self._seen: object = None
        self._file: tuple[int, int] | None = None
        # A new file may have the device and inode number of a removed one, so the file's id is compared, too.
        self._id: object = None
        self._is_told = self._is_told_of_rest = False

        def begin(journal: Journal) -> None:
            self._file, self._id, self._end = journal.file, self._id_of(journal), journal.last()
            self._tell_of_rest(journal)
            if isinstance(replay, datetime):
                self._position = last_before(journal, replay.timestamp())
            else:
                self._position = 0 if replay else self._end

        self._look(begin)

    def _id_of(self, journal: Journal) -> object:
        with contextlib.suppress(JournalDamagedError):
            return journal.fact("id")
        return self._id

    def _tell_of_rest(self, journal: Journal) -> None:
        """Log one warning if messages of a damaged file are still to be taken over."""
        if self._is_told_of_rest or not damaged_of(self._path):
            return
        from dkist_processing_core.journal.damage import damaged  # noqa: PLC0415 - rarely needed

        for each in damaged(journal):
            if not each.is_done:
                self._is_told_of_rest = True
                logger.warning(
                    "events of the damaged journal %s are still being taken over: this subscription may not yield all "
                    "of them. subscribe(replay=True) yields them when that is done; `dkist-core doctor` reports it.",
                    each.path,
                )

    def _look(self, read: Callable[[Journal], _Result]) -> _Result | None:
        """Return the result of `read` for the file; None if the file does not exist or is empty."""
        with explained(self._path):
            if not self._path.exists():
                return None
        try:
            return Journal.look(self._path, read)
        except JournalEmptyError:
            return None

    def _more(self) -> Iterable[Entry]:
        now, found = time.time(), versions(self._path)
        if found == self._seen:
            return []

        def read(journal: Journal) -> list[Entry]:
            now_id = self._id_of(journal)
            if (journal.file, now_id) != (self._file, self._id):
                if not journal.continues(self._file):
                    # A new file numbers its rows from 1 again.
                    self._position = self._end = 0
                self._file, self._id = journal.file, now_id
                self._tell_of_rest(journal)
            try:
                return journal.read(self._position, _BATCH)
            except JournalDamagedError as error:
                if not self._is_told:
                    logger.warning("%s. What cannot be read of it is passed over.", error)
                    self._is_told = True
                from dkist_processing_core.journal.damage import read_around  # noqa: PLC0415 - as in _mending

                entries, self._position = read_around(journal, self._position)
                return entries

        entries = self._look(read) or []
        if not entries and all(each is None or each[2] / 1e9 < now - _COARSE_SECONDS for each in found):
            self._seen = found
        return entries


class JournalReceiver(_Reading):
    """A receiver with a name: the file stores its position."""

    def __init__(
        self, open_journal: Callable[[], Journal], exchange: str, patterns: tuple[str, ...], *, name: str
    ) -> None:
        """Continue at the stored position of the name; begin now if there is none."""
        super().__init__(exchange, patterns)
        self._open_journal = open_journal
        self._name = name
        self._journal = self._open()
        self._end = self._journal.last()
        self._wanted = json.dumps([exchange, patterns])
        start = self._end
        if self._journal.lost_places(name):
            start = 0
            logger.warning(
                "the place of the subscription %r is not known, because the journal %s was damaged: "
                "it begins with the oldest event, and may yield events again",
                name,
                self._journal.path,
            )
        self._position = self._journal.position(name, start, self._wanted)
        self.missed = 0
        self._lock = FileLock(_lock_path(self._journal.path, name))
        self._is_active = False
        self._seen_version: int | None = None
        self._held = [self._journal]
        self._finalizer = forks.finalize(self, functools.partial(_let_go, self._held, self._lock))

    def _open(self) -> Journal:
        """Open the journal and take over damaged files first: otherwise later events would be read before theirs."""
        journal = self._open_journal()
        until = time.monotonic() + _WAIT_SECONDS
        while not take_over_damaged(journal) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        return journal

    def _reopen(self) -> None:
        """Continue with the file that is at the journal's path now."""
        old = self._journal
        self._journal = self._held[0] = self._open()
        start = self._position if self._journal.continues(old.file) else 0
        old.close()
        self._position = self._journal.position(self._name, start)
        self._end = min(self._end, self._journal.last())
        self._seen_version = None
        self._ahead.clear()

    def _next(self) -> Entry | None:
        if not self._journal.is_there:
            self._reopen()
        self._journal.renew(self._name)
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
            self._position = self._journal.position(self._name, self._position, self._wanted)
            self._is_active = True
        return self._is_active

    def _more(self) -> Iterable[Entry]:
        version = self._journal.data_version()
        if version == self._seen_version:
            return []
        missed = self._journal.missed(self._name)
        if missed:
            self.missed += missed
            logger.warning(
                "the subscription %r has missed events that became too old before it read them: %s", self._name, missed
            )
            # Only after the warning: if this process ended in between, the loss would stay unreported.
            self._journal.note_reported(self._name, missed)
        entries = self._journal.read(self._position, _BATCH)
        if not entries:
            # All entries were read: there are no more until the file changes.
            self._seen_version = version
        return entries

    def settle(self, entry: Entry, reason: str | None = None) -> None:
        """Advance the subscription's position past an entry; dead-letter the entry first if a reason is given."""
        if not self._finalizer.alive:
            return
        if reason is not None:
            self._journal.bury(self._name, entry, reason)
        self._journal.advance(self._name, entry.seq)

    def close(self) -> None:
        """Release the name, so that another receiver of this name can continue."""
        self._finalizer()


class _Settling(Protocol):
    def settle(self, entry: Entry, reason: str | None = None) -> None: ...


@dataclass(slots=True)
class JournalDelivery:
    """An event from the file; it holds no reference to its receiver, for which others of that name may wait."""

    entry: Entry
    receiver: "weakref.ref[_Settling]"
    is_new: bool
    is_settled: bool = False

    @property
    def message(self) -> Message:
        """The message."""
        return self.entry.message

    def acknowledge(self, wait: float = 0.0) -> None:  # noqa: ARG002 - it is done at once
        """Advance the subscription's position past this event."""
        self._settle(None)

    def bury(self, reason: str) -> None:
        """Dead-letter the event with a reason, and acknowledge it."""
        self._settle(reason)

    def _settle(self, reason: str | None) -> None:
        receiver = self.receiver()
        if not self.is_settled and receiver is not None:
            self.is_settled = True
            receiver.settle(self.entry, reason)


def _let_go(held: list[Journal], lock: FileLock) -> None:
    lock.release()
    for journal in held:
        journal.close()


def _lock_path(journal: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return journal.with_name(f"{journal.stem}.{digest}.lock")
