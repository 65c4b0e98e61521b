"""
Appending the telemetry of a process to the journal of its collectors, from any thread and signal handler.

While the journal cannot be written to, requests are kept in memory, up to a limit. What is dropped beyond it is counted
in the journal by the next append. Not here: what is collected and encoded (_batches), and the delivery (otlp).
"""

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from dkist_processing_core import budget
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.faults import is_busy
from dkist_processing_core.journal.locks import in_use
from dkist_processing_core.journal.otlp import OtlpJournal
from dkist_processing_core.otlp import Signal
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.uninstrumented import uninstrumented
from dkist_processing_core.text.internal_errors import log_internal_error_once

MOST_BYTES_IN_MEMORY = 16 * 1024**2
"""How many bytes of encoded telemetry are kept in memory while the journal cannot be written to."""
# How long one append waits for a journal that another process holds: it is tried again soon.
_PATIENCE_SECONDS = 0.05
# After an error of the disk, an attempt with each item would slow down the task.
_RETRY_SECONDS = 1.0
_Request = tuple[Signal, int, bytes]
logger = logging.getLogger(__name__)


class TelemetryJournal:
    """The journal of telemetry of this process and its forks, opened by the first append."""

    def __init__(self, open_journal: Callable[[float], OtlpJournal]) -> None:
        """
        Open no file.

        Args:
            open_journal: Opens the journal, and waits for other processes for at most the given number of seconds.
        """
        self._open_journal = open_journal
        self._journal: OtlpJournal | None = None
        # Other threads add to these two without the lock, so neither is iterated over, only copied.
        self._requests: deque[_Request] = deque()
        self._drops: deque[tuple[Signal, int, str | None]] = deque()
        # How many of the oldest requests are weighed, and how many bytes these have.
        self._weighed = self._weight = 0
        # The lock is reentrant and no Python code: a signal handler may interrupt the thread that holds it.
        self._lock = threading.RLock()
        self._of_thread = threading.local()
        self._retries_at = 0.0
        # What the books do not count yet, and what no warning has reported yet.
        self._dropped: dict[str, int] = {}
        self._unreported: dict[str, int] = {}
        self._reason_of_drop: str | None = None
        self._waited_before = 0.0
        self._problem: str | None = None
        self._reported: str | None = None
        forks.begin_in_forks(self)

    def begin_in_fork(self) -> None:
        """Begin anew: the parent process appends what it has in memory, and a thread of it may hold the lock."""
        self._lock = threading.RLock()
        self._of_thread = threading.local()
        self._journal = None
        self._requests, self._drops = deque(), deque()
        self._weighed = self._weight = 0
        self._dropped, self._unreported = {}, {}

    def open(self, patience: float) -> None:
        """
        Open the journal.

        Raises:
            JournalError: It cannot be used.
        """
        with self._lock:
            self._open(patience)

    def _open(self, patience: float) -> OtlpJournal:
        journal = self._journal = self._open_journal(patience)
        self._waited_before = 0.0
        journal.limit_waits(max(0.0, budget.TELEMETRY_JOURNAL_SECONDS - journal.waited))
        return journal

    def begin_waits(self) -> float:
        """Return how many seconds the appends since the last call have waited, and let the next ones wait again."""
        with self._lock:
            journal = self._journal
            if journal is None:
                return 0.0
            waited, self._waited_before = journal.waited - self._waited_before, journal.waited
            journal.limit_waits(budget.TELEMETRY_JOURNAL_SECONDS)
            return waited

    @property
    def is_pending(self) -> bool:
        """Whether some requests are not in the journal yet."""
        return bool(self._requests)

    def keep(self, signal: Signal, items: int, body: bytes) -> None:
        """Keep a serialized request with so many items for the next `append_pending`; this is one atomic step."""
        self._requests.append((signal, items, body))

    def drop(self, signal: Signal, items: int, reason: str | None) -> None:
        """Have the next `append_pending` count items as dropped, with a reason for the warning; one atomic step."""
        self._drops.append((signal, items, reason))

    def append_of_fork(self) -> None:
        """
        Append the requests in memory at the end of a fork.

        Many forks may end at the same time: each waits for its turn as long as the others append. If none does, as
        beside a stopped process, waiting is useless.
        """
        until = time.monotonic() + budget.FORK_SECONDS
        while True:
            before = self._version()
            self.append_pending(budget.STILL_JOURNAL_SECONDS, is_last=True)
            if not self._requests or time.monotonic() >= until or before is None or self._version() == before:
                return

    def _version(self) -> int | None:
        """Return a number that changes when another process appends; None if the journal cannot be read."""
        with contextlib.suppress(Exception), uninstrumented(), signals_deferred(), self._lock:
            return (self._journal or self._open(_PATIENCE_SECONDS)).version
        return None

    def append_pending(self, patience: float = _PATIENCE_SECONDS, *, is_last: bool = False) -> None:
        """
        Append the requests in memory; they stay there while another process holds the journal, or the disk is full.

        An error of this package is logged: the caller is the author's code, which ends a span.

        A signal handler that has interrupted a use of a journal appends nothing: it must not wait for the call that it
        has interrupted. The next call does it.

        Args:
            patience: How long to wait for other processes, in seconds; before the end of a process, all appends
                together wait at most for `budget.TELEMETRY_JOURNAL_SECONDS`.
            is_last: Whether to try at once again after an error, and to report requests that stay in memory.
        """
        # `_is_owned` is what `threading.Condition` uses. A Python object in place of the lock could be interrupted
        # between its steps.
        if in_use._is_owned() or getattr(self._of_thread, "is_busy", False):  # type: ignore[attr-defined] # noqa: SLF001
            return
        if sys.is_finalizing():
            # The interpreter has stopped the other threads, and one of them may hold a lock for ever. What was pending
            # at the exit is in the journal.
            return
        self._of_thread.is_busy = True
        warning: str | None = None
        failure: Exception | None = None
        try:
            # Not interrupted by the author's handlers: a request that was appended must not be appended again.
            with uninstrumented(), signals_deferred(), self._lock:
                try:
                    self._append_and_limit(patience, is_last=is_last)
                    if is_last:
                        self.begin_waits()
                        warning = self._warning()
                except Exception as error:  # noqa: BLE001 - an error of this package costs telemetry only
                    failure = error
        finally:
            self._of_thread.is_busy = False
        # Without the lock, for which another thread's log handler may wait.
        if failure is not None:
            log_internal_error_once("telemetry stays in memory", failure)
        if warning is not None:
            logger.warning("%s", warning)

    def _append_and_limit(self, patience: float, *, is_last: bool) -> None:
        if is_last and self._journal is not None:
            self._journal.limit_waits(patience)
        self._count_drops()
        # Always before telemetry is dropped.
        if is_last or time.monotonic() >= self._retries_at or not self._is_within_limit():
            self._append_all(patience)
        self._limit_memory()

    def _count_drops(self) -> None:
        """Count what was dropped since the last call."""
        while self._drops:
            signal, items, reason = self._drops.popleft()
            for counts in (self._dropped, self._unreported):
                counts[signal] = counts.get(signal, 0) + items
            self._reason_of_drop = reason or self._reason_of_drop

    def _is_within_limit(self) -> bool:
        """Weigh the new requests, and return True if all together are within the limit of the memory."""
        while self._weighed < len(self._requests):
            # Fast, since a new request is near the end.
            self._weight += len(self._requests[self._weighed][2])
            self._weighed += 1
        return self._weight <= MOST_BYTES_IN_MEMORY

    def _remove_oldest(self) -> _Request:
        request = self._requests.popleft()
        if self._weighed:
            self._weighed -= 1
            self._weight -= len(request[2])
        return request

    def _append_all(self, patience: float) -> None:
        """Append the requests in order, until an error."""
        while self._requests:
            try:
                self._append(*self._requests[0], patience)
            except Exception as error:  # noqa: BLE001 - an error of this package costs telemetry only
                self._problem = str(error)
                self._retries_at = time.monotonic() + _RETRY_SECONDS
                return
            self._remove_oldest()
        self._problem, self._retries_at = None, 0.0

    def _limit_memory(self) -> None:
        """Drop the oldest requests beyond the limit of the memory, and count them."""
        while not self._is_within_limit():
            signal, items, _ = self._remove_oldest()
            self.drop(signal, items, self._problem)
        self._count_drops()

    def _append(self, signal: Signal, items: int, body: bytes, patience: float) -> None:
        """Append one request; open the journal again if it was removed, damaged, or closed by other code."""
        is_open = self._journal is not None
        journal = self._journal or self._open(patience)
        journal.patience = patience
        try:
            journal.append(signal, items, body, dropped=self._dropped)
        except JournalError as error:
            if not is_open or is_busy(error.__cause__):
                raise
            journal.close()
            self._journal = None
            self._open(patience).append(signal, items, body, dropped=self._dropped)
        self._dropped = {}

    def _warning(self) -> str | None:
        """Return a warning about lost telemetry, and once for each reason if it will be lost at this process's end."""
        waiting = dict(self._unreported)
        for signal, items, _ in self._requests.copy():
            waiting[signal] = waiting.get(signal, 0) + items
        is_due = self._unreported or (waiting and self._problem != self._reported)
        self._reported, self._unreported = self._problem, {}
        if not is_due:
            return None
        counts = ", ".join(f"{count} of {signal}" for signal, count in waiting.items())
        return f"telemetry is not in its journal ({counts}): {self._problem or self._reason_of_drop}"
