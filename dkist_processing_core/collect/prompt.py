"""
Deriving the rows of runs soon after their reports have arrived, in a thread.

It takes a part of the time at most, unless there is a backlog, in which a report waits for others on its run.

Not here: the derivation (folding), and the timed work that rings the bell for reports of other processes (collector).
"""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dkist_processing_core.collect.listening import LONGEST_GAP_SECONDS
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
# How long a report waits for further ones on its run while this process is behind the bus: what the rows show is old
# then in any case, and most runs of a backlog are complete after that time, so that they are derived once.
_BEHIND_WAIT_SECONDS = 3.0
# A process that adds no reports derives what another one has left. Both at the same time would be in vain for one.
_ELSEWHERE_WAIT_SECONDS = 5.0
# The pause after a fold if reports wait, which bounds how often a run is derived.
_WAITING_PAUSE_SECONDS = 0.25
# The intake waits for the interpreter's lock after each of its statements, for 5 ms unless this is shorter.
_SWITCH_SECONDS = 0.0005
# The intervals before each service that runs in this process now.
_intervals: list[float] = []
logger = logging.getLogger("dkist_processing_core.collect")


class PromptFolding:
    """The thread that folds when reports have arrived."""

    def __init__(
        self,
        arrived: Bell,
        fold: Callable[[Callable[[], bool], Callable[[], float]], object],
        *,
        is_behind: bool = False,
        secrets: Iterable[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Store what the thread works with.

        Args:
            arrived: Rings when there may be work.
            fold: Does the work; it is called with a function that returns whether to leave the rest, and with
                `shortest_wait`.
            is_behind: Whether this process begins behind the bus, as with a new store.
            secrets: What no text of a failure may show.
            monotonic: A clock that nothing sets.
        """
        self._arrived = arrived
        self._fold = fold
        self._secrets = tuple(secrets)
        self._monotonic = monotonic
        # Since when reports were added without a proof that these were all, and when the last one was: at first, those
        # of an earlier process.
        self._adding_since: float | None = -math.inf if is_behind else None
        self._added_at = monotonic()
        self._is_ending = threading.Event()
        self._seen = arrived.count
        self.failure: str | None = None
        """The error of the last fold; None if it was complete."""

    def note_added(self) -> None:
        """Note that this process has added reports to the store, and have their runs derived."""
        self._added_at = self._monotonic()
        self._adding_since = self._adding_since or self._added_at
        self._arrived.ring()

    def note_caught_up(self) -> None:
        """Note that this process had received all reports that were on the bus a moment ago."""
        if self._adding_since is not None:
            self._adding_since = None
            # What has waited until now is derived.
            self._arrived.ring()

    def shortest_wait(self) -> float:
        """
        Return how long a new report waits now for further ones before its run is derived, in seconds.

        A process is behind the bus if it began so, or has added reports for some seconds, and has never received all of
        them since. One that adds none is not: another one receives, or the broker is away.
        """
        now, since = self._monotonic(), self._adding_since
        if now - self._added_at > LONGEST_GAP_SECONDS:
            return _ELSEWHERE_WAIT_SECONDS
        return _BEHIND_WAIT_SECONDS if since is not None and now - since > LONGEST_GAP_SECONDS else 0.0

    def pause_after(self, took: float) -> float:
        """Return the pause after a fold that took so long; both in seconds."""
        if self.shortest_wait():
            return _WAITING_PAUSE_SECONDS
        return min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, _PAUSES_FOR_A_FOLD * took))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread during the block; it begins with a fold of what an earlier process has left."""
        thread = threading.Thread(target=self._run, name="dkist-core-fold", daemon=True)
        self._arrived.ring()
        with _quick_switches():
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
                self._fold(self._is_ending.is_set, self.shortest_wait)
            except Exception as error:  # noqa: BLE001 - the next fold may succeed, and nothing else derives rows
                self._note(error)
            else:
                self.failure = None
            pause = self.pause_after(time.monotonic() - began)

    def _note(self, error: Exception) -> None:
        """Log a failure, but not the same one again with each fold; the consumer itself logs an outage."""
        known, self.failure = self.failure, line_of(error, self._secrets)
        if self.failure != known:
            level = logging.DEBUG if isinstance(error, InboxUnavailableError) else logging.WARNING
            logger.log(level, "rows of runs could not be derived: %s; this is tried again", self.failure)


@contextmanager
def _quick_switches() -> Iterator[None]:
    """Have the threads of this process change often during the block, which may overlap with others of its kind."""
    _intervals.append(sys.getswitchinterval())
    sys.setswitchinterval(min(_SWITCH_SECONDS, _intervals[0]))
    try:
        yield
    finally:
        former = _intervals.pop()
        if not _intervals:
            sys.setswitchinterval(former)
