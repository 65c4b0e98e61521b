"""
Deriving the rows of runs soon after their reports have arrived, in a thread that takes a part of the time at most.

Not here: the derivation (folding), and the timed one that takes what remains (collector).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.errors import InboxError

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

    def __init__(self, arrived: Bell, fold: Callable[[], object]) -> None:
        """Store what rings when reports have arrived, and what folds them."""
        self._arrived = arrived
        self._fold = fold
        self._is_ending = threading.Event()
        self._seen = arrived.count

    @property
    def is_pending(self) -> bool:
        """Whether reports have arrived that its next fold takes."""
        return self._arrived.count != self._seen

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread during the block."""
        thread = threading.Thread(target=self._run, name="dkist-core-fold", daemon=True)
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
            if not self.is_pending or self._is_ending.wait(pause):
                continue
            count, began = self._arrived.count, time.monotonic()
            try:
                self._fold()
            except InboxError as error:
                # The timed fold, which waits for the end of an outage, does this work.
                logger.debug("a prompt fold has failed: %s", error)
            self._seen = count
            took = _PAUSES_FOR_A_FOLD * (time.monotonic() - began)
            pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, took))
