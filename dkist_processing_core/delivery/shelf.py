"""
Storing published messages until delivery: in the journal; if that fails, in a spare journal; if that fails, in memory.

A message outside the journal is displaced: it is moved into the journal as soon as possible, in order. Not here: the
spare journal and the memory (overflow), events (publisher), and the delivery from the journal to the bus (drainer).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from dkist_processing_core.bus import Bus
from dkist_processing_core.delivery.guard import DEFERRED_SECONDS, guard
from dkist_processing_core.delivery.handover import Handover
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.delivery.journal_warnings import JournalWarnings
from dkist_processing_core.delivery.overflow import Overflow
from dkist_processing_core.delivery.shared_journal import READ_SECONDS, SharedJournal
from dkist_processing_core.delivery.wait_limit import WaitLimit
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import noted_on_host, take_over_spares
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag

_RETRY_SECONDS = 1.0
_Result = TypeVar("_Result")


class Shelf:
    """
    The undelivered messages of one publisher. Safe to use from several threads and signal handlers.

    It belongs to one process: a forked process creates another. An error of the disk or the journal raises no
    exception; one warning is logged.
    """

    def __init__(
        self,
        bus: Bus,
        limit: WaitLimit,
        on_moved: Callable[[], None],
        *,
        reports_folder: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Open no file.

        Args:
            bus: The bus whose journal is used.
            limit: How long a locked journal may delay the publisher.
            on_moved: Called when a thread of the shelf has moved messages into the journal.
            reports_folder: Returns False as long as another process of this run uses the same folder, and reports if it
                is not usable.
        """
        self._bus = bus
        self._limit = limit
        self._on_moved = on_moved
        # The lock is reentrant, since a signal handler may interrupt the thread that holds it, and then appends.
        self._lock = threading.RLock()
        self._shared = SharedJournal(bus, limit)
        self._overflow = Overflow(bus)
        self.handover = Handover()
        """Hands messages over to the drainer of this process once they are in the journal."""
        self.warnings = JournalWarnings(bus.journal_path, reports_folder=reports_folder)
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
        """The messages that could not be written to disk."""
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
        """Whether the journal or the overflow still holds messages of this publisher, for a caller inside the guard."""
        return self.is_displaced or self._shared.holds_own()

    def open(self) -> None:
        """Open the journal. If a signal handler interrupted a shelf call, the next append opens the journal."""
        self.run_guarded(self.append_inside_guard, otherwise=None)

    def append(self, messages: Sequence[Message], *, once: bool = False, note: str | None = None) -> bool:
        """
        Store messages in one transaction, and return True. Then they are on disk, or in memory if no disk is usable.

        With `once`, a message is left out if the journal has ever received its id before. A `note` is stored with the
        messages. If a signal handler interrupted a shelf call, this returns False: the interrupted call stores the
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
        self.log_warnings()
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
        Move displaced messages into the journal, in order, then append `messages`.

        If the journal cannot be used, store `messages` in the overflow. The caller is inside the guard. `patience` is
        how long to wait for the journal, in seconds. By default, wait only if no earlier message is displaced.
        """
        with self._lock:
            if patience is None and self._mover is not None and self.has_spare:
                # The mover thread moves all displaced messages, so that no other caller waits for the journal again.
                self._overflow.add(messages, once=once, note=note)
                return
            is_writing = self.is_displaced or bool(messages) or note is not None
            most = self._limit.spent_after(self._first_wait if patience is None else patience)
            try:
                with self._shared.in_use(most - self._limit.spent, is_checked=self.is_displaced) as journal:
                    for seqs in self._overflow.move_to(journal):
                        self._shared.count_as_own(seqs)
                    if messages or note is not None:
                        self.handover.expect()
                        seqs = journal.append(messages, once=once, note=note)
                        self._shared.count_as_own(seqs)
                        self.handover.give(journal.file, seqs, messages)
            except Exception as error:  # noqa: BLE001 - an error of this package loses no event either
                left = most - self._limit.spent
                problem = error if is_last_try else self._shared.recover(error, left)
                if problem is None:
                    self.append_inside_guard(
                        messages, once=once, note=note, patience=most - self._limit.spent, is_last_try=True
                    )
                else:
                    self._displace(problem, messages, once=once, note=note)
            else:
                self._overflow.end()
                if is_writing:
                    self.warnings.end()
            if self._is_closed:
                # A signal handler may have closed the shelf after deferring these messages, so close the files here.
                self._close_files()
            elif self.is_displaced and self._mover is None:
                self._start_mover()

    def run_guarded(
        self, action: Callable[[], _Result], otherwise: _Result, seconds: float = DEFERRED_SECONDS
    ) -> _Result:
        """
        Return the result of an action during which no other thread uses the files, then append deferred messages.

        If a signal handler interrupted a shelf call, return `otherwise`. Messages are appended for at most `seconds`.
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
        """For how many seconds to wait for the journal before messages are displaced."""
        return 0.0 if self.is_displaced or self.warnings.is_unusable else self._limit.left_for_first

    def _displace(self, reason: Exception, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        """Store messages in the overflow, and prepare a warning with the reason why the journal cannot be used."""
        self.warnings.begin(reason)
        if messages or len(self.memory):
            place = self._overflow.add(messages, once=once, note=note)
            if place is not None:
                self.warnings.prepare(reason, place)

    def log_warnings(self) -> None:
        """Log the pending warnings, outside of the lock: the author's log handler may publish."""
        finding, self._shared.finding = self._shared.finding, None
        self.warnings.log(finding)

    def _start_mover(self) -> None:
        mover = threading.Thread(target=self._move_when_possible, name="dkist-core-mover", daemon=True)
        # If no thread can be started, the next message and `close` move the messages.
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
        self.log_warnings()
        return not self.is_displaced

    def append_deferred(self) -> None:
        """Append the deferred messages that remain because an exception ended the interrupted call."""
        self.run_guarded(lambda: None, otherwise=None)

    def include_backlog(self) -> None:
        """Treat all messages now in the journal as this publisher's."""
        self.run_guarded(self._shared.include_backlog, otherwise=None)

    def remembers(self, note: str) -> bool:
        """Return True if this note is in the journal; False if not, or if that cannot be read."""

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
        """Close the files. Messages in memory are lost, and one warning states their number."""
        self._is_closed = True
        self._end.raise_()
        # From now on only a signal handler can append, to another shelf, so this ends.
        self.run_guarded(lambda: None, otherwise=None, seconds=max(DEFERRED_SECONDS, self._limit.seconds))
        # Inside the guard, so that the mover thread is not moving these messages at the same time.
        self.warnings.log_lost(self.run_guarded(self.memory.clear, otherwise=0))
        self.run_guarded(self._close_files, otherwise=None)

    def _close_files(self) -> None:
        self._overflow.close()
        self._shared.close()
