"""
Appending the telemetry of a process to the journal of its collectors, from any thread and signal handler.

While the journal cannot be written to, requests are kept in memory, up to a limit. Not here: what is collected and
encoded (_batches), and the delivery (otlp).
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.faults import is_busy
from dkist_processing_core.journal.locks import in_use
from dkist_processing_core.journal.otlp import OtlpJournal
from dkist_processing_core.otlp import Signal
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.uninstrumented import uninstrumented

MOST_BYTES_IN_MEMORY = 16 * 1024**2
"""How many bytes of encoded telemetry are kept in memory while the journal cannot be written to."""
# How long one append waits for a journal that another process holds: it is tried again soon.
_PATIENCE_SECONDS = 0.05
LAST_PATIENCE_SECONDS = 0.3
"""How long it waits before telemetry is dropped."""
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
        self._requests: deque[_Request] = deque()
        # The lock is reentrant and no Python code: a signal handler may interrupt the thread that holds it.
        self._lock = threading.RLock()
        self._of_thread = threading.local()
        self._retries_at = 0.0
        self._dropped: dict[Signal, int] = {}
        self._reason_of_drop: str | None = None
        self._problem: str | None = None
        self._reported: str | None = None
        forks.begin_in_forks(self)

    def begin_in_fork(self) -> None:
        """Begin anew: the parent process appends what it has in memory, and a thread of it may hold the lock."""
        self._lock = threading.RLock()
        self._of_thread = threading.local()
        self._journal = None
        self._requests = deque()

    def open(self, patience: float) -> None:
        """
        Open the journal.

        Raises:
            JournalError: It cannot be used.
        """
        with self._lock:
            self._journal = self._open_journal(patience)

    @property
    def is_pending(self) -> bool:
        """Whether some requests are not in the journal yet."""
        return bool(self._requests)

    def keep(self, signal: Signal, items: int, body: bytes) -> None:
        """Keep a serialized request with so many items for the next `append_pending`; this is one atomic step."""
        self._requests.append((signal, items, body))

    def append_pending(self, patience: float = _PATIENCE_SECONDS, *, is_last: bool = False) -> None:
        """
        Append the requests in memory; they stay there while another process holds the journal, or the disk is full.

        A signal handler that has interrupted a use of a journal appends nothing: it must not wait for the call that it
        has interrupted. The next call does it.

        Args:
            patience: How long to wait for other processes, in seconds.
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
        try:
            # Not interrupted by the author's handlers: a request that was appended must not be appended again.
            with uninstrumented(), signals_deferred(), self._lock:
                if is_last or time.monotonic() >= self._retries_at:
                    self._append_all(patience)
                self._limit_memory()
        finally:
            self._of_thread.is_busy = False
        if is_last:
            self._report()

    @property
    def _is_within_limit(self) -> bool:
        return sum(len(body) for _, _, body in self._requests) <= MOST_BYTES_IN_MEMORY

    def _append_all(self, patience: float) -> None:
        """Append the requests in order, until an error."""
        while self._requests:
            try:
                self._append(*self._requests[0], patience)
            except Exception as error:  # noqa: BLE001 - an error of this package costs telemetry only
                if not self._is_within_limit and patience < LAST_PATIENCE_SECONDS:
                    patience = LAST_PATIENCE_SECONDS
                    continue
                self._problem = str(error)
                self._retries_at = time.monotonic() + _RETRY_SECONDS
                return
            self._requests.popleft()
        self._problem, self._retries_at = None, 0.0

    def _limit_memory(self) -> None:
        """Drop the oldest requests beyond the limit of the memory, and count them."""
        while not self._is_within_limit:
            signal, items, _ = self._requests.popleft()
            self._dropped[signal] = self._dropped.get(signal, 0) + items
            self._reason_of_drop = self._problem or self._reason_of_drop

    def _append(self, signal: Signal, items: int, body: bytes, patience: float) -> None:
        """Append one request; open the journal again if it was removed, damaged, or closed by other code."""
        is_open = self._journal is not None
        journal = self._journal = self._journal or self._open_journal(patience)
        journal.patience = patience
        try:
            journal.append(signal, items, body)
        except JournalError as error:
            if not is_open or is_busy(error.__cause__):
                raise
            journal.close()
            self._journal = None
            journal = self._journal = self._open_journal(patience)
            journal.append(signal, items, body)

    def _report(self) -> None:
        """Log a warning about telemetry that is lost, and once for each reason if it will be when this process ends."""
        waiting = dict(self._dropped)
        for signal, items, _ in self._requests:
            waiting[signal] = waiting.get(signal, 0) + items
        if self._dropped or (waiting and self._problem != self._reported):
            counts = ", ".join(f"{count} of {signal}" for signal, count in waiting.items())
            logger.warning("telemetry is not in its journal (%s): %s", counts, self._problem or self._reason_of_drop)
        self._reported, self._dropped = self._problem, {}
