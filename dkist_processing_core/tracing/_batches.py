"""
The spans and log records of a process that wait to be encoded: up to 512 of them, and up to 0.2 s.

The thread that ends a span or logs a record encodes and appends a full batch itself, so nothing is dropped, and the
memory is bounded. Not here: the journal (_telemetry_journal), and the SDK's classes (_providers).
"""

import _thread
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dkist_processing_core.otlp import Signal
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text.internal_errors import redacted_stack
from dkist_processing_core.tracing._telemetry_journal import TelemetryJournal

MOST_ITEMS = 512
"""How many items a batch has, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` or `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE` is less."""
MOST_SECONDS = 0.2
"""How long an item waits in memory."""
logger = logging.getLogger(__name__)


class Batches:
    """The batches of all signals of this process, and the thread that appends those that are not full in time."""

    def __init__(self, journal: TelemetryJournal) -> None:
        """Start no thread: one runs only while items wait."""
        self.journal = journal
        self._batches: list[Batch] = []
        self._is_scheduled = False
        self._appended_at = 0.0
        self.forked_at = 0
        """Time at which this process began as a fork, in nanoseconds since 1970; 0 if it is none."""
        forks.begin_in_forks(self)

    def begin_in_fork(self) -> None:
        """Begin anew: the parent process appends what it has in memory, and its thread is not in the fork."""
        self._is_scheduled = False
        self.forked_at = time.time_ns()
        for batch in self._batches:
            batch.clear()
        # Such a process ends without the functions that `atexit` has registered.
        workers = sys.modules.get("multiprocessing.util")
        if workers is not None:
            workers.register_after_fork(self, _append_at_the_end_of_a_worker)

    def add(self, signal: Signal, encode: Callable[[Sequence[Any]], bytes], most_items: int) -> "Batch":
        """
        Return a new batch.

        Args:
            signal: The signal of its items.
            encode: Returns the serialized request with some items.
            most_items: How many items fill the batch.
        """
        batch = Batch(self, signal, encode, most_items)
        self._batches.append(batch)
        return batch

    def of(self, signal: Signal) -> "Batch | None":
        """Return the batch of a signal; None if this process does not append it."""
        return next((batch for batch in self._batches if batch.signal == signal), None)

    def append(self, patience: float | None = None, *, is_last: bool = False) -> None:
        """Encode and append all items; the arguments are those of `TelemetryJournal.append_pending`."""
        for batch in self._batches:
            batch.append()
        self.journal.append_pending(*(() if patience is None else (patience,)), is_last=is_last)

    def append_at_exit(self) -> None:
        """Encode and append all items at the end of the process, which may be a fork among many."""
        if self.forked_at:
            for batch in self._batches:
                batch.append()
            self.journal.append_of_fork()
        else:
            self.append(is_last=True)

    def schedule(self) -> None:
        """Append all items in a moment, by a thread; without threads, by every call that comes after such a moment."""
        if self._is_scheduled:
            return
        self._is_scheduled = True
        try:
            # `threading.Thread` has a lock that is not reentrant: a handler that interrupts its start would wait for
            # ever.
            _thread.start_new_thread(self._append_later, ())
        except RuntimeError:
            self._is_scheduled = False
            if time.monotonic() >= self._appended_at + MOST_SECONDS:
                self._appended_at = time.monotonic()
                self.append()

    def _append_later(self) -> None:
        time.sleep(MOST_SECONDS)
        # First: what comes after this is scheduled again.
        self._is_scheduled = False
        try:
            self.append()
        except Exception as error:  # noqa: BLE001 - an error of this package costs telemetry only
            logger.debug("telemetry is not appended\n%s", redacted_stack(error))
        if self.journal.is_pending:
            self.schedule()


class Batch:
    """The items of one signal that are not encoded yet. Each step is atomic, so a signal handler may add items."""

    def __init__(
        self, batches: Batches, signal: Signal, encode: Callable[[Sequence[Any]], bytes], most_items: int
    ) -> None:
        """Store the arguments of `Batches.add`."""
        self._batches = batches
        self.signal = signal
        self._encode = encode
        self._most_items = most_items
        self._items: deque[Any] = deque()
        self._unconfirmed: list[Any] = []
        self.on_appended: Callable[[Iterable[Any]], object] | None = None
        """It is called with items that the journal has."""

    def add(self, item: Any) -> None:
        """Add an item; if the batch is full, encode and append it."""
        self._items.append(item)
        if len(self._items) >= self._most_items:
            self.append()
        else:
            self._batches.schedule()

    def append(self) -> None:
        """Encode and append all items."""
        with signals_deferred():
            while items := self._taken():
                try:
                    requests = self._encoded(items)
                    for count, body in requests:
                        self._batches.journal.keep(self.signal, count, body)
                    if self.on_appended is not None:
                        self._unconfirmed += items
                    items = []
                finally:
                    # An exception of one of our signal handlers, which are not deferred, loses nothing.
                    self._items.extendleft(reversed(items))
                self._batches.journal.append_pending()
            if self._unconfirmed and self.on_appended is not None and not self._batches.journal.is_pending:
                confirmed, self._unconfirmed = self._unconfirmed, []
                self.on_appended(confirmed)

    def clear(self) -> None:
        """Drop all items."""
        self._items = deque()

    def _taken(self) -> list[Any]:
        items: list[Any] = []
        try:
            while len(items) < self._most_items:
                items.append(self._items.popleft())
        except IndexError:
            pass
        return items

    def _encoded(self, items: list[Any]) -> list[tuple[int, bytes]]:
        """Return the items as a request; if one of them cannot be encoded, a request for each of the others."""
        try:
            return [(len(items), self._encode(items))]
        except Exception as error:  # noqa: BLE001 - an author's value may be any object
            if len(items) == 1:
                logger.debug("an item of %s cannot be encoded\n%s", self.signal, redacted_stack(error))
                self._batches.journal.drop(self.signal, 1, "it cannot be encoded")
                return []
            return [encoded for item in items for encoded in self._encoded([item])]


def _append_at_the_end_of_a_worker(batches: Batches) -> None:
    workers = sys.modules["multiprocessing.util"]
    workers.Finalize(batches, batches.append_at_exit, exitpriority=0)


def batch_size(name: str) -> int:
    """Return the size of a batch by the SDK's variable for it, at most `MOST_ITEMS`; an unusable value is ignored."""
    value = os.environ.get(name, "").strip()
    return min(max(1, int(value)), MOST_ITEMS) if value.isdecimal() else MOST_ITEMS
