"""
Deriving the rows of runs soon after their reports have arrived, in a thread that takes a part of the time at most.

Not here: the derivation (folding), and the timed work that rings for what another process has added (collector).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.consumer.handlers import line_of
from dkist_processing_core.errors import InboxUnavailableError

# How long reports are collected before a fold: those of one moment belong together, and share a transaction.
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
# The pause after a fold, by the time that it took: a run is derived as a whole each time, so the more there is to do,
# the more reports should share a fold.
_PAUSES_FOR_A_FOLD = 3.0
_LOOK_SECONDS = 60.0
logger = logging.getLogger("dkist_processing_core.collect")


class PromptFolding:
    """The thread that folds when reports have arrived."""

    def __init__(
        self, arrived: Bell, fold: Callable[[Callable[[], bool]], object], *, secrets: Iterable[str] = ()
    ) -> None:
        """
        Store what the thread works with.

        Args:
            arrived: Rings when there may be work.
            fold: Does the work; it is called with a function that returns whether to leave the rest.
            secrets: What no text of a failure may show.
        """
        self._arrived = arrived
        self._fold = fold
        self._secrets = tuple(secrets)
        self._is_ending = threading.Event()
        self._seen = arrived.count
        self.failure: str | None = None
        """The error of the last fold; None if it was complete."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread during the block; it begins with a fold of what an earlier process has left."""
        thread = threading.Thread(target=self._run, name="dkist-core-fold", daemon=True)
        self._arrived.ring()
        thread.start()
        try:
            yield
        finally:
            self._is_ending.set()
            self._arrived.ring()
            thread.join()

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._is_ending.is_set():
            self._arrived.wait(self._seen, _LOOK_SECONDS)
            if self._arrived.count == self._seen or self._is_ending.wait(pause):
                continue
            self._seen, began = self._arrived.count, time.monotonic()
            try:
                self._fold(self._is_ending.is_set)
            except Exception as error:  # noqa: BLE001 - the next fold may succeed, and nothing else derives rows
                self._note(error)
            else:
                self.failure = None
            took = _PAUSES_FOR_A_FOLD * (time.monotonic() - began)
            pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, took))

    def _note(self, error: Exception) -> None:
        """Log a failure, but not the same one again with each fold; the consumer itself logs an outage."""
        known, self.failure = self.failure, line_of(error, self._secrets)
        if self.failure != known:
            level = logging.DEBUG if isinstance(error, InboxUnavailableError) else logging.WARNING
            logger.log(level, "rows of runs could not be derived: %s; this is tried again", self.failure)
