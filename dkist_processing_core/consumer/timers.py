"""
The timed work of a consumer: each is done by one process at a time, and is due until it has been done.

Not here: the rows of the times (inbox.timers), and the thread that waits for them (service).
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from dkist_processing_core.consumer.event_loop import EventLoop
from dkist_processing_core.consumer.handlers import Called, line_of
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.errors import InboxLostError, InboxUnavailableError
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox import Timers as TimerRows

# Another process may do the work before: its next time is read again after this.
_LOOK_SECONDS = 5.0
logger = logging.getLogger("dkist_processing_core.consumer")


class Timers:
    """The timed work of one consumer in one process."""

    def __init__(
        self,
        database: Database,
        consumer: str,
        timers: Sequence[tuple[float, Called]],
        *,
        may_work: Callable[[], bool],
        is_ending: Callable[[], bool] = lambda: False,
        outage: Outage,
        loop: EventLoop,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store the work, each with its interval in seconds, and whether this process may do it now, and begin more."""
        self._database = database
        self._rows = TimerRows(database, consumer, clock=clock)
        self._timers = tuple(timers)
        self._may_work = may_work
        self._is_ending = is_ending
        self._outage = outage
        self._clock = clock
        self._loop = loop
        self.call: str | None = None
        """The work that it does now; None if it does none."""
        self.looked_at: float | None = None
        """When (`time.monotonic`) it began its last look, in which it did once what was due; None before."""

    def step(self) -> float:
        """Do the work that is due, and return how many seconds to wait before the next step."""
        began, rest = time.monotonic(), _LOOK_SECONDS
        try:
            for seconds, called in self._timers if self._may_work() else ():
                if self._is_ending():
                    return 0.0
                wait = self._rows.next_at(called.name, seconds) - self._clock()
                self._outage.end()
                if wait > 0:
                    rest = min(rest, wait)
                elif self._do(seconds, called):
                    rest = 0.0
        except InboxUnavailableError as error:
            return self._outage.begin(error)
        self.looked_at = began
        return rest

    def _do(self, seconds: float, called: Called) -> bool:
        """Do work, and return whether it was due; another process may be at it, or may have done it."""
        self.call = called.name
        try:
            return self._call(seconds, called)
        except InboxLostError:
            raise
        except Exception as error:
            if issubclass(type(error), InboxUnavailableError) and called.takes_transaction:
                raise
            # In an outage this raises an error as well. Otherwise the failure is the author's, and ends no consumer.
            self._rows.postpone(called.name, seconds)
            line = line_of(error, self._database.secrets)
            logger.warning("%s has failed: %s; it is tried again in %g s", called.name, line, seconds)
            return True
        finally:
            self.call = None

    def _call(self, seconds: float, called: Called) -> bool:
        if not called.takes_transaction:
            with self._rows.due_apart(called.name, seconds) as is_due:
                if is_due:
                    called.call(transaction=None, loop=self._loop, secrets=self._database.secrets)
            return is_due
        turn: AbstractContextManager[object] = self._loop.transaction_turn if called.is_async else nullcontext()
        with turn, self._rows.due(called.name, seconds) as connection:
            if connection is not None:
                called.call(transaction=connection, loop=self._loop, secrets=self._database.secrets)
        return connection is not None
