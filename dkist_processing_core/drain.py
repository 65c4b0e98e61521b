"""
The outbox's way to the broker: one thread per process, one process per outbox at a time.

Not here: AMQP itself (bus), nor what is published (publisher).
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dkist_processing_core.bus import FileLock, Journal
from dkist_processing_core.bus._amqp_bus import AmqpBus
from dkist_processing_core.errors import BusError, ConfigurationError, JournalError

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp import AmqpLink

WINDOW = 1000
"""How many messages may be on their way to the broker, unconfirmed."""
MAX_TRIES = 3
UNREACHABLE_SECONDS = 30.0
"""For how long a broker that could not be reached is not tried again, by any process of this host."""
_CONNECT_SECONDS = 5.0
# The first try of a process has to fail before the process gives up waiting, or the next would try in vain too.
_SHARE_OF_FLUSH = 0.75
_LOCK_POLL_SECONDS = 0.1
_HEARTBEAT_SECONDS = 2.0
_STALLED_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 30.0
logger = logging.getLogger(__name__)


class Drainer:
    """Delivers the outbox of one broker from a thread of its own, which owns the connection."""

    def __init__(self, bus: AmqpBus, on_progress: Callable[[], None]) -> None:
        """Name the broker; `on_progress` is called from the thread whenever something changed."""
        self._bus = bus
        self._on_progress = on_progress
        self._has_work = threading.Event()
        self._is_stopping = threading.Event()
        self._link: AmqpLink | None = None
        self._warned: str | None = None
        self.failure: str | None = None
        """Why nothing can be delivered just now, in an operator's words; None where nothing is known to be wrong."""
        self._thread = threading.Thread(target=self._run, name="dkist-core-drain", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the outbox holds something new."""
        self._has_work.set()
        link = self._link
        if link is not None:
            link.wake()

    def stop(self, timeout: float) -> None:
        """End the thread; what it has not delivered stays in the outbox."""
        self._is_stopping.set()
        self.wake()
        self._thread.join(timeout)

    def _run(self) -> None:
        """Deliver until stopped, whatever happens: a thread that died would leave everything where it is."""
        failures = 0
        while not self._is_stopping.is_set():
            try:
                with self._bus.open_journal(synced=False) as journal:
                    lock = FileLock(journal.path.with_suffix(".lock"))
                    try:
                        self._deliver_until_stopped(journal, lock)
                    finally:
                        lock.release()
            except JournalError as error:
                failures += 1
                self._note_failure(str(error))
                self._rest(min(_LONGEST_WAIT_SECONDS, 2.0**failures))
            except Exception:
                failures += 1
                logger.exception("events are not delivered: an error of this package")
                self._rest(min(_LONGEST_WAIT_SECONDS, 2.0**failures))
        self._on_progress()

    def _deliver_until_stopped(self, journal: Journal, lock: FileLock) -> None:
        failures = 0
        self._rest(journal.unreachable_until - time.time())
        while not self._is_stopping.is_set():
            self._has_work.clear()
            if not journal.pending(0, 1):
                self._has_work.wait()
            elif not lock.acquire():
                self._is_stopping.wait(_LOCK_POLL_SECONDS)
            else:
                try:
                    self._deliver(journal, lock, _CONNECT_SECONDS if failures else self._first_patience)
                    failures = 0
                except (BusError, ConfigurationError) as error:
                    failures += 1
                    journal.unreachable_until = time.time() + UNREACHABLE_SECONDS
                    self._note_failure(str(error))
                    lock.release()
                    self._rest(min(_LONGEST_WAIT_SECONDS, 2.0**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    @property
    def _first_patience(self) -> float:
        wanted = self._bus.settings.event_flush_timeout * _SHARE_OF_FLUSH
        return min(_CONNECT_SECONDS, max(0.5, wanted))

    def _rest(self, seconds: float) -> None:
        """Leave the broker alone for a while, and say so to whoever waits for a delivery."""
        if seconds > 0:
            self.failure = self.failure or f"{self._bus.where} could not be reached a moment ago"
            self._on_progress()
            self._is_stopping.wait(seconds)

    def _deliver(self, journal: Journal, lock: FileLock, patience: float) -> None:
        """Send what is pending until the connection breaks or the thread is stopped; hold the lock only for that."""
        with self._bus.open_link(patience) as link:
            self._link = link
            try:
                if journal.unreachable_until:
                    journal.unreachable_until = 0
                self._note_recovery()
                while not self._is_stopping.is_set():
                    if lock.acquire():
                        self._send_pending(journal, link)
                        lock.release()
                        # What was refused and has tries left is tried again soon; else there is only the heartbeat.
                        link.settle(_LOCK_POLL_SECONDS if journal.pending(0, 1) else _HEARTBEAT_SECONDS)
                    else:
                        link.settle(_LOCK_POLL_SECONDS)
            finally:
                self._link = None

    def _send_pending(self, journal: Journal, link: "AmqpLink") -> None:
        """Send and settle until nothing is pending that was not refused in this pass."""
        sent_up_to = 0
        last_progress = time.monotonic()
        while not self._is_stopping.is_set():
            entries = [] if link.blocked_reason else journal.pending(sent_up_to, WINDOW - link.unsettled)
            for entry in entries:
                link.send(entry.seq, entry.message)
                sent_up_to = entry.seq
            if not link.unsettled and not link.blocked_reason:
                return
            settled = link.settle(_LOCK_POLL_SECONDS)
            if settled.confirmed:
                journal.remove_confirmed(settled.confirmed)
            for seq, reason in settled.refused:
                if journal.note_refusal(seq, reason, max_tries=MAX_TRIES):
                    logger.warning("message %s of %s is set aside: %s", seq, journal.path, reason)
            if settled.confirmed or settled.refused:
                last_progress = time.monotonic()
                self._on_progress()
            elif time.monotonic() - last_progress > _STALLED_SECONDS:
                # Another process may have better luck, and must not wait for this one.
                why = f"blocks publishers: {link.blocked_reason}" if link.blocked_reason else "confirms nothing"
                msg = f"{link.where} {why}"
                raise BusError(msg)

    def _note_failure(self, reason: str) -> None:
        self.failure = reason
        if reason != self._warned:
            self._warned = reason
            logger.warning("%s. Events are kept in %s until it can be reached.", reason, self._bus.journal_path)
        self._on_progress()

    def _note_recovery(self) -> None:
        if self.failure is not None and self._warned is not None:
            logger.info("%s can be reached again", self._bus.where)
        self.failure = self._warned = None
