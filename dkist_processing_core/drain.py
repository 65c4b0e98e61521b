"""
The outbox's way to the broker: one thread per process, one process per outbox at a time.

Not here: AMQP itself (bus), nor what is published (publisher).
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.bus import FileLock, Journal
from dkist_processing_core.bus._amqp_bus import AmqpBus
from dkist_processing_core.bus.topology import publisher_topology
from dkist_processing_core.errors import BusError, BusUnreachableError, ConfigurationError, JournalError

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp import AmqpLink

WINDOW = 1000
"""How many messages may be on their way to the broker, unconfirmed."""
RETRY_SECONDS = (0.25, 2.5)
"""When a message that the broker refused is tried again; refused once more after that, it is set aside."""
UNREACHABLE_SECONDS = 30.0
"""For how long a broker that could not be reached is not tried again, by any process of this host."""
_CONNECT_SECONDS = 5.0
# The first try of a process has to fail before the process gives up waiting, or the next would try in vain too.
_SHARE_OF_FLUSH = 0.75
_LOCK_POLL_SECONDS = 0.1
_HEARTBEAT_SECONDS = 2.0
_STALLED_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 30.0
_RESTORE_SECONDS = 5.0
# For each outbox what this process has said of it, so that several publishers in turn say it once.
_told: dict[Path, str] = {}
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
        self._not_before: dict[int, float] = {}
        self._restored_at = -math.inf
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
        # The clock may have been wrong when the mark was made.
        self._rest(min(journal.unreachable_until - time.time(), UNREACHABLE_SECONDS))
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
                    if isinstance(error, BusUnreachableError):
                        # Not for a refusal: it costs nobody any time, and ends as soon as somebody mends the settings.
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
                self.failure = None
                while not self._is_stopping.is_set():
                    if lock.acquire():
                        self._send_pending(journal, link)
                        lock.release()
                        if self._is_stopping.is_set():
                            # The wake that would end the waiting below may have been used up above.
                            return
                        # Until something new comes, what was refused has its next try, or there is the heartbeat.
                        now = time.monotonic()
                        # What is due and was not sent just now is no longer there: another process was faster.
                        self._not_before = {seq: due for seq, due in self._not_before.items() if due > now}
                        link.settle(min([_HEARTBEAT_SECONDS, *(due - now for due in self._not_before.values())]))
                    else:
                        link.settle(_LOCK_POLL_SECONDS)
            finally:
                self._link = None

    def _send_pending(self, journal: Journal, link: "AmqpLink") -> None:
        """Send and settle until nothing is pending whose time has come."""
        sent_up_to = 0
        last_progress = time.monotonic()
        while not self._is_stopping.is_set():
            entries = [] if link.blocked_reason else journal.pending(sent_up_to, WINDOW - link.unsettled)
            for entry in entries:
                sent_up_to = entry.seq
                if self._not_before.get(entry.seq, 0.0) <= time.monotonic():
                    link.send(entry.seq, entry.message)
            if link.unsettled or link.blocked_reason:
                if self._settle(journal, link):
                    last_progress = time.monotonic()
                elif time.monotonic() - last_progress > _STALLED_SECONDS:
                    # Another process may have better luck, and must not wait for this one.
                    raise BusUnreachableError(_blocking(link) or f"{link.where} confirms nothing")
            elif not entries:
                return

    def _settle(self, journal: Journal, link: "AmqpLink") -> bool:
        """Note what the broker has said of messages sent, and return whether it has said anything."""
        settled = link.settle(_LOCK_POLL_SECONDS)
        self._note_blocking(journal, link)
        if settled.confirmed:
            journal.remove_confirmed(settled.confirmed)
            for seq in settled.confirmed:
                self._not_before.pop(seq, None)
        for seq, reason in settled.refused:
            self._note_refusal(journal, seq, reason)
        has_progress = bool(settled.confirmed or settled.refused)
        if has_progress:
            self._note_recovery(journal)
            self._on_progress()
        if settled.refused:
            self._restore(link)
        return has_progress

    def _note_refusal(self, journal: Journal, seq: int, reason: str) -> None:
        tries = len(RETRY_SECONDS) + 1
        if journal.note_refusal(seq, reason, max_tries=tries):
            self._not_before.pop(seq, None)
            logger.warning("message %s of %s is set aside: %s", seq, journal.path, reason)
        else:
            # After the first refusal here the first pause, whatever other processes have tried before.
            pause = RETRY_SECONDS[1 if seq in self._not_before else 0]
            self._not_before[seq] = time.monotonic() + pause

    def _restore(self, link: "AmqpLink") -> None:
        """Make what the refused messages lacked, which may have gone since this link was made."""
        now = time.monotonic()
        if now < self._restored_at + _RESTORE_SECONDS:
            return
        refusal = link.restore(publisher_topology(self._bus.settings))
        if refusal is not None and self._restored_at == -math.inf:
            logger.warning("messages are refused, and the topology they need cannot be made: %s", refusal)
        self._restored_at = now

    def _note_blocking(self, journal: Journal, link: "AmqpLink") -> None:
        """Have nobody wait for a broker that blocks publishers, in this process or in the next ones."""
        blocking = _blocking(link)
        if blocking is not None and self.failure is None:
            journal.unreachable_until = time.time() + UNREACHABLE_SECONDS
            self._note_failure(blocking)
        elif blocking is None:
            self.failure = None

    def _note_failure(self, reason: str) -> None:
        self.failure = reason
        if _told.get(self._bus.journal_path) != reason:
            _told[self._bus.journal_path] = reason
            logger.warning("%s. Events are kept in %s until it can be reached.", reason, self._bus.journal_path)
        self._on_progress()

    def _note_recovery(self, journal: Journal) -> None:
        if journal.unreachable_until:
            journal.unreachable_until = 0
        if _told.pop(self._bus.journal_path, None) is not None:
            logger.info("%s can be reached again", self._bus.where)

    def tell_of(self, waiting: int) -> None:
        """Say that events were left in the outbox, unless this process has said why before."""
        path = self._bus.journal_path
        if path not in _told:
            _told[path] = reason = self.failure or f"{self._bus.where} has not confirmed them in time"
            logger.warning("events that wait in %s: %s. %s", path, waiting, reason)


def _blocking(link: "AmqpLink") -> str | None:
    return f"{link.where} blocks publishers: {link.blocked_reason}" if link.blocked_reason else None
