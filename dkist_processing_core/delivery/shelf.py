"""
Where published messages are kept until they are delivered: in the journal, else in a spare journal, else in memory.

A message beside the journal is moved into it as soon as possible, in order. Not here: the places beside the journal
(overflow), events (publisher), and the delivery from the journal to the bus (drainer).
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dkist_processing_core.bus import Bus
from dkist_processing_core.delivery.guard import DEFERRED_SECONDS, guard
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.delivery.overflow import Overflow
from dkist_processing_core.delivery.shared_journal import READ_SECONDS, SharedJournal
from dkist_processing_core.delivery.wait_limit import WaitLimit
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import noted_on_host, take_over_spares
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.text.internal_errors import log_internal_error_once

_RETRY_SECONDS = 1.0
_Result = TypeVar("_Result")
# Journals that this process could not write to at its last try: its other publishers do not wait for them.
_unusable: set[Path] = set()
logger = logging.getLogger(__name__)


class Shelf:
    """
    The messages of one publisher that the bus may still lack. Safe to use from several threads and signal handlers.

    It belongs to one process: a fork needs its own. Errors of disk and journal raise nothing; one warning is logged.
    """

    def __init__(self, bus: Bus, limit: WaitLimit, on_moved: Callable[[], None]) -> None:
        """Open nothing yet; `on_moved` is called when a thread of the shelf has moved messages into the journal."""
        self._bus = bus
        self._limit = limit
        self._on_moved = on_moved
        # Reentrant, since a signal's handler may interrupt the thread that holds it, and append too.
        self._lock = threading.RLock()
        self._shared = SharedJournal(bus, limit)
        self._overflow = Overflow(bus)
        self._unreported: str | None = None
        self._mover: threading.Thread | None = None
        self._end = SignalSafeFlag()
        self._is_closed = False

    @property
    def journal(self) -> Journal | None:
        """The open journal; None if it cannot be used at present."""
        return self._shared.journal

    @property
    def is_displaced(self) -> bool:
        """Whether some messages are not in the journal yet."""
        return not self._overflow.is_empty

    @property
    def memory(self) -> InMemoryQueue:
        """The messages that no disk takes."""
        return self._overflow.memory

    @property
    def has_spare(self) -> bool:
        """Whether messages are in a spare journal."""
        return self._overflow.spare is not None

    @property
    def is_pending(self) -> bool:
        """Whether the journal still holds messages of this publisher, or may hold some."""
        return self._shared.has_own and self.run_guarded(self._shared.holds_own, otherwise=True)

    @property
    def is_pending_inside_guard(self) -> bool:
        """The same with the messages beside the journal, for a caller that has the turn."""
        return self.is_displaced or self._shared.holds_own()

    def open(self) -> None:
        """Open the journal; in a signal's handler that has interrupted a shelf, the first message opens it."""
        self.run_guarded(self.append_inside_guard, otherwise=None)

    def append(self, messages: Sequence[Message], *, once: bool = False, note: str | None = None) -> bool:
        """
        Keep messages: when this returns True they are on disk, in one transaction, unless no disk takes them.

        With `once`, a message is left out if the journal has ever received its id before. A `note` is stored with the
        messages. In a signal's handler that has interrupted a shelf this returns False: the interrupted call keeps the
        messages.
        """
        if guard.is_busy:
            guard.defer(self, messages, once=once, note=note)
            return False
        guard.is_busy = True
        try:
            self.append_inside_guard(messages, once=once, note=note)
        finally:
            guard.is_busy = False
        guard.append_deferred()
        self.report()
        return True

    def append_inside_guard(
        self,
        messages: Sequence[Message] = (),
        *,
        once: bool = False,
        note: str | None = None,
        patience: float | None = None,
        is_last_try: bool = False,
    ) -> None:
        """
        Move what is beside the journal into it, in order, and append messages; else keep these beside it, too.

        The caller has the turn. `patience` is how long to wait for the journal, in seconds. By default a message waits
        for it only if it took all messages before.
        """
        with self._lock:
            if patience is None and self._mover is not None and self.has_spare:
                # The mover moves it all into the journal, so that no other caller waits for that again.
                self._overflow.add(messages, once=once, note=note)
                return
            is_writing = self.is_displaced or bool(messages) or note is not None
            most = self._limit.spent_after(self._first_wait if patience is None else patience)
            try:
                with self._shared.in_use(most - self._limit.spent, is_checked=self.is_displaced) as journal:
                    for seqs in self._overflow.move_to(journal):
                        self._shared.count_as_own(seqs)
                    if messages or note is not None:
                        self._shared.count_as_own(journal.append(messages, once=once, note=note))
            except Exception as error:  # noqa: BLE001 - an error of this package costs no event either
                left = most - self._limit.spent
                problem = error if is_last_try else self._shared.recover(error, left)
                if problem is None:
                    self.append_inside_guard(
                        messages, once=once, note=note, patience=most - self._limit.spent, is_last_try=True
                    )
                else:
                    self._keep_beside(problem, messages, once=once, note=note)
            else:
                self._overflow.end()
                if is_writing:
                    _unusable.discard(self._bus.journal_path)
            if self._is_closed:
                # A handler has deferred these messages and then closed the shelf.
                self._close_files()
            elif self.is_displaced and self._mover is None:
                self._start_mover()

    def run_guarded(
        self, action: Callable[[], _Result], otherwise: _Result, seconds: float = DEFERRED_SECONDS
    ) -> _Result:
        """
        Return the result of an action while no other thread uses the files, then append what was deferred meanwhile.

        In a handler that has interrupted their use, return `otherwise`. Messages are appended for at most `seconds`.
        """
        if guard.is_busy:
            return otherwise
        guard.is_busy = True
        try:
            with self._lock:
                result = action()
        finally:
            guard.is_busy = False
        guard.append_deferred(seconds)
        return result

    @property
    def _first_wait(self) -> float:
        """For how many seconds to wait for the journal before messages are kept beside it."""
        return 0.0 if self.is_displaced or self._bus.journal_path in _unusable else self._limit.left_for_first

    def _keep_beside(self, reason: Exception, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        """Keep messages that the journal does not take, and prepare a warning with the reason."""
        found = str(reason)
        if not isinstance(reason, JournalError):
            log_internal_error_once(f"the journal {self._bus.journal_path} is not used", reason)
            found = f"the journal {self._bus.journal_path} is not used: {type(reason).__name__}"
        _unusable.add(self._bus.journal_path)
        if messages or len(self.memory):
            place = self._overflow.add(messages, once=once, note=note)
            if place is not None:
                self._unreported = f"{found}. Events are kept in {place} until it can be used."

    def report(self) -> None:
        """Log the pending warnings, outside of the lock: the author's log handler may publish."""
        unreported, self._shared.finding, self._unreported = (self._shared.finding, self._unreported), None, None
        for each in filter(None, unreported):
            logger.warning("%s", each)

    def _start_mover(self) -> None:
        mover = threading.Thread(target=self._move_when_possible, name="dkist-core-keeper", daemon=True)
        # Without a thread, the next message and `close` try it.
        with contextlib.suppress(RuntimeError):
            mover.start()
            self._mover = mover

    def _move_when_possible(self) -> None:
        """Move displaced messages into the journal as soon as possible, even if nothing else is published."""
        while not self._end.wait(_RETRY_SECONDS):
            with self._lock:
                if self.is_displaced and not self._is_closed:
                    self.append_inside_guard(patience=0.0)
                if not self.is_displaced or self._is_closed:
                    self._mover = None
                    break
        self._on_moved()

    def move(self, patience: float) -> bool:
        """Try to move displaced messages into the journal, for `patience` seconds; return True if none is left."""
        self.run_guarded(lambda: self.append_inside_guard(patience=patience), otherwise=None)
        self.report()
        return not self.is_displaced

    def append_deferred(self) -> None:
        """Append deferred messages that are left because an exception ended the interrupted call."""
        self.run_guarded(lambda: None, otherwise=None)

    def include_backlog(self) -> None:
        """Count the messages of other processes that are in the journal by now as this publisher's."""
        self.run_guarded(self._shared.include_backlog, otherwise=None)

    def remembers(self, note: str) -> bool:
        """Return True if this note is in the journal, as far as is known."""

        def look() -> bool:
            with contextlib.suppress(JournalError):
                return self.journal is not None and self.journal.remembers(note)
            return False

        return self.run_guarded(look, otherwise=False)

    def noted_by(self, process: int, *notes: str) -> str | None:
        """Return the first of `notes` that `process` stored, and take over the messages of ended processes."""

        def look() -> str | None:
            began, left = time.monotonic(), max(READ_SECONDS, self._limit.left)
            try:
                found = noted_on_host(self._bus.journal_path, notes, process=process, patience=left)
                if self.journal is not None:
                    take_over_spares(self.journal, seconds=left - (time.monotonic() - began))
                return found
            finally:
                self._limit.spend(time.monotonic() - began)

        return self.run_guarded(look, otherwise=None)

    def count_waiting(self) -> int:
        """Return how many messages of this process and others are on disk and wait for the bus."""

        def count() -> int:
            waiting = 0
            spare = self._overflow.spare
            for journal in (self.journal, spare.journal if spare is not None else None):
                with contextlib.suppress(JournalError):
                    waiting += 0 if journal is None else journal.books().pending
            return waiting

        return self.run_guarded(count, otherwise=0)

    def close(self) -> None:
        """Close the files. Messages in memory are lost, and one warning counts them."""
        self._is_closed = True
        self._end.raise_()
        # From now on only a signal's handler can append, to another shelf, so this cannot go on for ever.
        self.run_guarded(lambda: None, otherwise=None, seconds=max(DEFERRED_SECONDS, self._limit.seconds))
        # In turn, so not while the mover moves these messages into the journal.
        lost = self.run_guarded(self.memory.clear, otherwise=0)
        if lost:
            logger.warning("events are lost, since %s could not be written to: %s", self._bus.journal_path, lost)
        self.run_guarded(self._close_files, otherwise=None)

    def _close_files(self) -> None:
        self._overflow.close()
        self._shared.close()
