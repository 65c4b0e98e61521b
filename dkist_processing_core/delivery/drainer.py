"""
The thread that drains the outbox to the broker: one per process, and one process per outbox at a time.

It acquires the lock, connects, and pauses after errors. Not here: sending on a connection (delivery.delivery).
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.backlog import Backlog
from dkist_processing_core.delivery.connection_tries import ConnectionTries, is_elsewhere
from dkist_processing_core.delivery.delivery import UNREACHABLE_SECONDS, Delivery, blocking_of
from dkist_processing_core.delivery.handover import Handover
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.delivery.outbox_warnings import OutboxWarnings
from dkist_processing_core.delivery.refusals import Refusals
from dkist_processing_core.errors import BusError, ConfigurationError, JournalError, JournalLostError
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.spare import take_over_spares
from dkist_processing_core.process import forks
from dkist_processing_core.process.own_random import own_random
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.text.internal_errors import log_internal_error_once

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink
    from dkist_processing_core.delivery.send_measures import SendMeasures

_LOCK_POLL_SECONDS = 0.1
_HEARTBEAT_SECONDS = 2.0
# Spare journals that take longer wait for the next round: they must not delay the end of the process.
_TAKE_OVER_SECONDS = 0.2
logger = logging.getLogger(__name__)


class Drainer:
    """Delivers the outbox of one broker from its own thread, which owns the connection."""

    def __init__(
        self,
        bus: AmqpBus,
        on_progress: Callable[[], None],
        memory: InMemoryQueue | None = None,
        handover: Handover | None = None,
        *,
        heeds_mark: bool = True,
        poll_seconds: float | None = None,
        measures: "SendMeasures | None" = None,
    ) -> None:
        """
        Start no thread and open no connection.

        Args:
            bus: The broker, and its outbox.
            on_progress: Called from the thread after each change.
            memory: Messages to deliver as well, even while the outbox cannot be used. Their owner logs why.
            handover: Messages that this process has just appended to the outbox.
            heeds_mark: Pause first if another process could not reach the broker a moment ago.
            poll_seconds: The interval at which to read the outbox, for other processes' messages; None: at `wake`.
            measures: Measures the answers of the broker to messages of the outbox, if metrics are served.
        """
        self._bus = bus
        self._measures = measures
        self._on_progress = on_progress
        self._memory = InMemoryQueue(0) if memory is None else memory
        self._reports_disk = memory is None
        self._heeds_mark = heeds_mark
        self._poll_seconds = poll_seconds
        self._warnings = OutboxWarnings(bus.journal_path, self._memory)
        self._refusals = Refusals(bus, self._warnings)
        self._handover = handover
        self._in_memory = Backlog(self._memory, self._refusals)
        self._outbox: Backlog | None = None
        self._file: tuple[int, int] | None = None
        self._lock = FileLock(bus.journal_path.with_suffix(".lock"))
        self._has_work = SignalSafeFlag()
        self._end = SignalSafeFlag()
        self._starting = forks.Lock()
        self._thread: threading.Thread | None = None
        self._opened: Journal | None = None
        self._link: AmqpLink | None = None
        self._tries = ConnectionTries(bus.settings.event_flush_timeout)
        self._has_taken_over = True
        self._bus_failure: str | None = None
        self._lock_failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why nothing can be delivered at present, in words for an operator; None if no problem is known."""
        # Messages in memory are delivered without the lock.
        lock_failure = None if len(self._memory) else self._lock_failure
        # Callers wait only for the exchange of events.
        held = self._refusals.reasons.get(self._bus.event_exchange)
        return lock_failure or self._bus_failure or blocking_of(self._link) or held

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that delivers; False if none could be started."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread. If none can be started, the next `wake` tries again, or `deliver_here` delivers."""
        with self._starting:
            if self._thread is not None:
                # Another thread has started it a moment ago.
                return
            # Not in the thread: the author's code runs at the same time, and may close a file of these steps.
            self._bus.import_client()
            with contextlib.suppress(JournalError):
                self._opened = self._opened or self._bus.open_journal(synced=False, patience=0.0)
            thread = threading.Thread(target=self._run, name="dkist-core-drain", daemon=True)
            if self._thread is not None:
                # A signal handler has published in the meantime, and started it.
                return
            self._thread = thread
            try:
                # A RuntimeError: too many processes or threads, or an interpreter that is about to exit.
                with contextlib.suppress(RuntimeError):
                    thread.start()
            finally:
                if not thread.is_alive():
                    self._thread = None

    def deliver_here(self, until: float) -> None:
        """Deliver in the calling thread until nothing is pending, or until a time of `time.monotonic`."""
        for flag in (self._end, self._has_work):
            # An earlier delivery here may have left them raised.
            flag.lower()
            flag.raise_at(until)
        self._run()

    def end_here(self) -> None:
        """End `deliver_here` early."""
        self._end.raise_()

    def wake(self) -> None:
        """Notify the thread that the outbox holds new messages."""
        if self._thread is None and not self._end.is_raised:
            self.start()
        self._has_work.raise_()
        if (link := self._link) is not None:
            link.wake()

    def stop(self, timeout: float) -> None:
        """Stop the thread and wait at most `timeout` seconds for its end; undelivered messages stay in the outbox."""
        self._end.raise_()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._opened is not None:
            self._opened.close()

    def report_waiting(self, count: int) -> None:
        """Log how many messages are left in the outbox, unless this process has logged a reason before."""
        self._warnings.report_waiting(count, self.failure or f"{self._bus.where} has not confirmed them in time")

    def _run(self) -> None:
        """Deliver until stopped. Continue after every error: without the thread, no message would be delivered."""
        while not self._end.is_raised:
            try:
                self._deliver_journal()
            except JournalLostError as error:
                # The author's code has closed the journal's descriptors: it is opened again.
                logger.debug("the journal is opened again: %s", error)
            except JournalError as error:
                if self._reports_disk:
                    self._warnings.report_failure(str(error))
                self._deliver_memory(self._tries.pause())
            except Exception as error:  # noqa: BLE001 - see the docstring
                log_internal_error_once("events are not delivered", error)
                self._bus_failure = f"{type(error).__name__} in this package"
                self._rest(self._tries.pause())
        self._warnings.report_total()
        self._on_progress()

    def _deliver_memory(self, seconds: float) -> None:
        """Deliver only messages in memory for some seconds, without the outbox."""
        until = time.monotonic() + seconds
        while not self._end.is_raised and (remaining := until - time.monotonic()) > 0:
            self._has_work.lower()
            if len(self._memory):
                self._connect_and_deliver(None)
            else:
                self._has_work.wait(remaining)

    def _deliver_journal(self) -> None:
        opened, self._opened = self._opened, None
        with opened or self._bus.open_journal(synced=False) as journal:
            journal.patience = BUSY_SECONDS
            try:
                self._backlog_of(journal).remove()
                self._has_taken_over = take_over_spares(journal, seconds=_TAKE_OVER_SECONDS)
                if self._heeds_mark:
                    # At most as long as a mark lasts: the clock may have been wrong when the mark was set.
                    self._rest(min(journal.unreachable_until - time.time(), UNREACHABLE_SECONDS))
                while not self._end.is_raised:
                    self._has_work.lower()
                    if not len(self._memory) and not journal.pending(0, 1):
                        self._has_work.wait(self._poll_seconds if self._has_taken_over else 0.0)
                        self._look_after(journal)
                    elif not self._takes_lock():
                        self._end.wait(_LOCK_POLL_SECONDS)
                    else:
                        self._connect_and_deliver(journal)
            finally:
                self._lock.release()

    def _backlog_of(self, journal: Journal) -> Backlog:
        """Return the backlog of the outbox; a new one for a new file, which numbers its rows from 1 again."""
        if self._outbox is None or journal.file != self._file:
            self._outbox, self._file = Backlog(journal, self._refusals, self._handover), journal.file
        self._outbox.source = journal
        return self._outbox

    def _takes_lock(self) -> bool:
        """Acquire the lock for delivering and return True if it is held; keep the reason if it cannot be used."""
        try:
            is_held = self._lock.acquire()
        except JournalError as error:
            self._lock_failure = str(error)
            self._on_progress()
            raise
        self._lock_failure = None
        return is_held

    def _look_after(self, journal: Journal) -> None:
        """Check that the file is still at its path, and take over the spare journals of other processes."""
        if not journal.is_there:
            self._file = None
            msg = f"the journal {journal.path} was removed"
            raise JournalError(msg)
        self._has_taken_over = take_over_spares(journal, seconds=_TAKE_OVER_SECONDS)

    def _connect_and_deliver(self, journal: Journal | None) -> None:
        """Open one connection, deliver until it ends, and pause after an error."""
        link: AmqpLink | None = None
        began = time.monotonic()
        try:
            with self._bus.connect(self._tries.patience) as link:
                self._link, self._bus_failure = link, None
                try:
                    self._deliver(link, journal)
                finally:
                    self._link = None
        except (BusError, ConfigurationError) as error:
            self._lock.release()
            repeats = self._tries.may_repeat(error, was_connected=link is not None, seconds=time.monotonic() - began)
            if not (repeats and is_elsewhere(error)):  # the next try knows more: one outage is one warning
                self._warnings.report_failure(str(error))
            if repeats:
                self._end.wait(own_random.uniform(0.0, _LOCK_POLL_SECONDS))
                return
            if journal is not None and is_elsewhere(error):
                # A refusal sets no mark: it comes at once, and ends as soon as the settings are corrected.
                journal.unreachable_until = time.time() + UNREACHABLE_SECONDS
            self._bus_failure = str(error)
            self._rest(self._tries.pause())

    def _rest(self, seconds: float) -> None:
        """Pause for some seconds without contacting the broker, and notify threads that wait for a delivery."""
        if seconds > 0:
            self._bus_failure = self._bus_failure or f"{self._bus.where} could not be reached a moment ago"
            self._on_progress()
            self._end.wait(seconds)

    def _deliver(self, link: "AmqpLink", journal: Journal | None) -> None:
        """Send pending messages until the connection breaks or the thread is stopped; lock only while sending."""
        # An error is ignored: the user may lack only permissions that it does not need. Otherwise a message is refused.
        self._bus.restore(link, bindings=False)
        begin = partial(Delivery, self._bus, link, self._warnings, end=self._end, on_progress=self._on_progress)
        outbox = None if journal is None else begin(self._backlog_of(journal), measures=self._measures)
        in_memory = begin(self._in_memory)
        try:
            while not self._end.is_raised:
                if journal is not None and outbox is not None:
                    if not self._takes_lock():
                        link.settle(_LOCK_POLL_SECONDS)
                        continue
                    self._look_after(journal)
                    outbox.run()
                in_memory.run()
                if self._end.is_raised or (journal is None and not len(self._memory)):
                    # The notification that would end the wait below may have been consumed above.
                    return
                self._lock.release()
                # Wait until a new message arrives, a refused one is due for its next try, or a heartbeat is due.
                rest = self._refusals.next_within(self._poll_seconds or _HEARTBEAT_SECONDS)
                link.settle(rest if self._has_taken_over else 0.0)
        finally:
            if in_memory.has_confirmed or (outbox is not None and outbox.has_confirmed):
                self._tries.succeed()
