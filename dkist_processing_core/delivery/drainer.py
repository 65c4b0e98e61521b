"""
Delivery from the outbox to the broker: one thread per process, one process per outbox at a time.

Not here: AMQP itself (bus), and what is published (publisher).
"""

import contextlib
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core import budget
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.in_memory_queue import Memory
from dkist_processing_core.delivery.refusals import MAX_TRIES, Refusals
from dkist_processing_core.errors import (
    BusError,
    BusRefusedError,
    BusUnreachableError,
    ConfigurationError,
    ConnectionFailedHereError,
    JournalError,
    JournalLostError,
)
from dkist_processing_core.journal import BUSY_SECONDS, Entry, Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.message import Message
from dkist_processing_core.journal.spare import adopt
from dkist_processing_core.process import forks
from dkist_processing_core.process.flag import Flag
from dkist_processing_core.text.own_errors import log_own_error_once

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink

UNREACHABLE_SECONDS = 30.0
"""For how many seconds no process of this host tries a broker again that could not be reached."""
_CONNECT_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.1
_HEARTBEAT_SECONDS = 2.0
_STALLED_SECONDS = 10.0
# A thread that stops waits for acknowledgements if the last one is no older than this; the caller of `stop` limits the
# whole wait.
_HEARING_SECONDS = 0.3
_LONGEST_REST_SECONDS = 10.0
# Files beside the outbox that are not taken over in this time wait for the next turn, so that neither the delivery nor
# the end of the process is delayed.
_ADOPTION_SECONDS = 0.2
_HELD_UP_SECONDS = 1.0
_MAX_REASONS = 3
# Few, since each may have 64 KiB.
_READ_AHEAD = 100
_RESTORE_SECONDS = 5.0
# For each outbox, the reasons that this process has logged, so that several publishers in turn log each only once.
_told: dict[Path, set[str]] = {}
logger = logging.getLogger(__name__)


class Drainer:
    """Delivers the outbox of one broker from its own thread, which owns the connection."""

    def __init__(
        self,
        bus: AmqpBus,
        on_progress: Callable[[], None],
        *,
        memory: Memory | None = None,
        heeds_mark: bool = True,
        poll_seconds: float | None = None,
    ) -> None:
        """
        Take the broker; `on_progress` is called from the thread whenever something changed.

        `memory` is delivered too, also while the outbox cannot be used. Without `heeds_mark` a broker that could not
        be reached a moment ago is tried all the same. With `poll_seconds` the outbox is polled at that interval, for
        messages that other processes append; without, it is read when `wake` is called.
        """
        self._bus = bus
        self._on_progress = on_progress
        self._memory = Memory(0) if memory is None else memory
        # A caller that shares a memory logs its own warning about an unusable disk.
        self._tells_of_disk = memory is None
        self._heeds_mark = heeds_mark
        self._poll_seconds = poll_seconds
        self._has_work = Flag()
        self._starting = forks.Lock()
        self._end = Flag()
        self._link: AmqpLink | None = None
        self._failures = 0
        self._refusals = Refusals()
        self._restored_at = -math.inf
        self._lacking: BusError | None = None
        self._unremoved: set[int] = set()
        self._file: tuple[int, int] | None = None
        self._passed: tuple[frozenset[str], int] = (frozenset(), 0)
        self._set_aside = 0
        self._has_adopted = True
        self._told_reasons: set[str] = set()
        self._bus_failure: str | None = None
        self._lock_failure: str | None = None
        self._thread: threading.Thread | None = None
        self._opened: Journal | None = None

    @property
    def failure(self) -> str | None:
        """Why nothing can be delivered at present, in words for an operator; None if no problem is known."""
        # Messages in memory are delivered without the lock.
        return (None if len(self._memory) else self._lock_failure) or self._bus_failure

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that delivers; False if none could be started."""
        return self._thread is not None

    def start(self) -> None:
        """Start to deliver if a thread can be started; else the next `wake` tries again, or `deliver_here` delivers."""
        with self._starting:
            if self._thread is not None:
                # Another thread has started it a moment ago.
                return
            # Imports and the opening of the journal are done here, not in the thread, which runs beside the author's
            # code. That code may close a file that an import has open, or an import may close a file of that code; and
            # it must not touch the descriptors that the opening of a journal uses.
            self._bus.load()
            with contextlib.suppress(JournalError):
                self._opened = self._opened or self._bus.open_journal(synced=False, patience=0.0)
            thread = threading.Thread(target=self._run, name="dkist-core-drain", daemon=True)
            # Too many processes or threads, or an interpreter that is about to exit.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def deliver_here(self, until: float) -> None:
        """Deliver in the calling thread until nothing is pending, or until a time of `time.monotonic`."""
        for flag in (self._end, self._has_work):
            # An earlier delivery here may have left them raised.
            flag.lower()
            flag.raise_at(until)
        self._run()

    def end_here(self) -> None:
        """End a `deliver_here` before its time is over."""
        self._end.raise_()

    def wake(self) -> None:
        """Notify the thread that the outbox holds new messages."""
        if self._thread is None and not self._end.is_raised:
            self.start()
        self._has_work.raise_()
        link = self._link
        if link is not None:
            link.wake()

    def stop(self, timeout: float) -> None:
        """Stop the thread and wait at most `timeout` seconds for its end; undelivered messages stay in the outbox."""
        self._end.raise_()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._opened is not None:
            self._opened.close()

    def _run(self) -> None:
        """Deliver until stopped, whatever error occurs: if the thread died, nothing would be delivered any more."""
        while not self._end.is_raised:
            try:
                self._deliver_journal()
            except JournalLostError as error:
                # The author's code has closed the journal's descriptors: it is opened again.
                logger.debug("the journal is opened anew: %s", error)
            except JournalError as error:
                if self._tells_of_disk:
                    self._tell(str(error))
                self._deliver_memory(self._longer_rest())
            except Exception as error:  # noqa: BLE001 - as the docstring says
                log_own_error_once("events are not delivered", error)
                self._rest_after(f"{type(error).__name__} in this package")
        if self._set_aside > len(self._told_reasons):
            logger.warning(
                "set aside in %s: %s; `dkist-core outbox list --set-aside` says why",
                self._bus.journal_path,
                self._set_aside,
            )
        self._on_progress()

    def _deliver_memory(self, seconds: float) -> None:
        """Do not use the outbox for a while, and deliver meanwhile the messages in memory."""
        until = time.monotonic() + seconds
        while not self._end.is_raised and (remaining := until - time.monotonic()) > 0:
            self._has_work.lower()
            if len(self._memory):
                self._connect_and_deliver(None, None)
            else:
                self._has_work.wait(remaining)

    def _deliver_journal(self) -> None:
        opened, self._opened = self._opened, None
        with opened or self._bus.open_journal(synced=False) as journal:
            journal.patience = BUSY_SECONDS
            lock = FileLock(journal.path.with_suffix(".lock"))
            try:
                if journal.file != self._file:
                    # A new file numbers its rows from 1 again.
                    self._unremoved = {seq for seq in self._unremoved if seq in self._memory}
                    self._file = journal.file
                self._remove_confirmed(journal)
                self._has_adopted = adopt(journal, seconds=_ADOPTION_SECONDS)
                if self._heeds_mark:
                    # No longer than such a mark lasts: the clock may have been wrong when the mark was set.
                    self._rest(min(journal.unreachable_until - time.time(), UNREACHABLE_SECONDS))
                while not self._end.is_raised:
                    self._has_work.lower()
                    if not self._has_pending(journal):
                        self._has_work.wait(self._poll_seconds if self._has_adopted else 0.0)
                        self._look_after(journal)
                    elif not self._takes(lock):
                        self._end.wait(_LOCK_POLL_SECONDS)
                    else:
                        self._connect_and_deliver(journal, lock)
            finally:
                lock.release()

    def _takes(self, lock: FileLock) -> bool:
        """Acquire the lock for delivering and return True if it is held; keep the reason if it cannot be used."""
        try:
            is_held = lock.acquire()
        except JournalError as error:
            self._lock_failure = str(error)
            self._on_progress()
            raise
        self._lock_failure = None
        return is_held

    def _look_after(self, journal: Journal) -> None:
        """Check that the file is still the one that others use, and take over other processes' spare journals."""
        if not journal.is_there:
            self._file = None
            msg = f"the journal {journal.path} was removed"
            raise JournalError(msg)
        self._has_adopted = adopt(journal, seconds=_ADOPTION_SECONDS)

    def _has_pending(self, journal: Journal) -> bool:
        return len(self._memory) > 0 or bool(journal.pending(0, 1))

    def _connect_and_deliver(self, journal: Journal | None, lock: FileLock | None) -> None:
        """Open one connection, deliver as long as it lasts, and pause after the error that ended it."""
        link: AmqpLink | None = None
        began, patience = time.monotonic(), self._patience
        try:
            with self._bus.connect(patience) as link:
                self._link = link
                self._bus_failure = None
                try:
                    self._deliver(link, journal, lock)
                finally:
                    self._link = None
        except (BusError, ConfigurationError) as error:
            if link is not None and link.casualties and link.was_closed_for_a_message:
                self._blame(journal, link, link.casualties, error)
            if lock is not None:
                lock.release()
            # A process that was stopped meanwhile (SIGSTOP, a suspended machine) has missed the broker's answer.
            was_held_up = link is None and time.monotonic() - began > patience + _HELD_UP_SECONDS
            is_fault_here = isinstance(error, ConnectionFailedHereError)
            if not self._failures and (link is not None or was_held_up or is_fault_here):
                # A broken connection does not mean that the next one fails too: it is tried before the broker is marked
                # as unreachable.
                self._failures = 1
                self._tell(str(error))
                self._end.wait(random.uniform(0.0, _LOCK_POLL_SECONDS))  # noqa: S311 - jitter
                return
            if journal is not None and isinstance(error, BusUnreachableError) and not is_fault_here:
                # Not for a refusal: it costs no time, and it ends as soon as the settings are corrected.
                journal.unreachable_until = time.time() + UNREACHABLE_SECONDS
            self._tell(str(error))
            self._rest_after(str(error))

    @property
    def _patience(self) -> float:
        """How many seconds to wait for a connection: at the first try, less than a process waits at its end."""
        wanted = self._bus.settings.event_flush_timeout * budget.FIRST_CONNECTION
        return _CONNECT_SECONDS if self._failures else min(_CONNECT_SECONDS, max(0.5, wanted))

    def _rest_after(self, reason: str) -> None:
        self._bus_failure = reason
        self._rest(self._longer_rest())

    def _longer_rest(self) -> float:
        """Count a failure, and return how many seconds to pause after it: longer each time, with jitter."""
        self._failures += 1
        return min(_LONGEST_REST_SECONDS, 2.0 ** (self._failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _rest(self, seconds: float) -> None:
        """Pause for some seconds without contacting the broker, and notify those that wait for a delivery."""
        if seconds > 0:
            self._bus_failure = self._bus_failure or f"{self._bus.where} could not be reached a moment ago"
            self._on_progress()
            self._end.wait(seconds)

    def _deliver(self, link: "AmqpLink", journal: Journal | None, lock: FileLock | None) -> None:
        """Send pending messages until the connection breaks or the thread is stopped; hold the lock only for that."""
        # An error is ignored: a user who may only write may not need the missing items; a refused message shows if so.
        self._bus.restore(link, bindings=False)
        while not self._end.is_raised:
            if lock is not None and not self._takes(lock):
                link.settle(_LOCK_POLL_SECONDS)
                continue
            if journal is not None:
                self._look_after(journal)
                self._send_pending(journal, link)
            self._send_pending(self._memory, link)
            if self._end.is_raised or (lock is None and not len(self._memory)):
                # The notification that would end the wait below may have been consumed above.
                return
            if lock is not None:
                lock.release()
            # Wait until a new message arrives, a refused one is due for its next try, or a heartbeat is due.
            rest = self._refusals.next_within(self._poll_seconds or _HEARTBEAT_SECONDS)
            link.settle(rest if self._has_adopted else 0.0)

    def _send_pending(self, source: Journal | Memory, link: "AmqpLink") -> None:
        """Send messages and process acknowledgements until no pending message is due."""
        held, read_up_to, end = self._begin_reading(source)
        ahead: deque[Entry] = deque()
        last_progress = time.monotonic()
        while not self._end.is_raised:
            is_at_end = False
            try:
                while link.has_room and not is_at_end and self._send(ahead, link):
                    ahead.extend(source.pending(read_up_to, _READ_AHEAD, without=held))
                    is_at_end = not ahead
                    read_up_to = ahead[-1].seq if ahead else read_up_to
                if link.unsettled or link.has_news or link.blocked_reason:
                    if self._settle(source, link):
                        last_progress = time.monotonic()
                elif is_at_end:
                    self._passed = (held, end) if source is not self._memory else self._passed
                    return
            except BusRefusedError as error:
                if not (link.is_connected and link.casualties):
                    raise
                # The broker closes the channel at a message that it refuses for its content; this drops all messages
                # behind it, too.
                casualties = link.reopen()
                self._settle(source, link)
                self._blame(source, link, casualties, error)
                # The exchange may have been deleted. If this user may not create it, the refusal gave the reason.
                self._bus.restore(link, bindings=False)
                held, read_up_to, end = self._begin_reading(source)
                last_progress = time.monotonic()
                ahead.clear()
            if time.monotonic() - last_progress > _STALLED_SECONDS:
                # Another process may succeed, and must not wait for this one.
                self._failures += 1
                raise BusUnreachableError(_blocking(link) or f"{link.where} confirms nothing")
        self._hear_out(source, link, last_progress)

    def _hear_out(self, source: Journal | Memory, link: "AmqpLink", last_heard: float) -> None:
        """Wait for pending acknowledgements while the broker answers: the next deliverer would send those again."""
        while link.unsettled and link.is_connected and not link.blocked_reason:
            if time.monotonic() > last_heard + _HEARING_SECONDS:
                return
            if self._settle(source, link):
                last_heard = time.monotonic()

    def _begin_reading(self, source: Journal | Memory) -> tuple[frozenset[str], int, int]:
        """Return the exchanges to skip, the number after which to read, and the present last number."""
        held = frozenset(self._refusals.held_exchanges)
        passed_over, passed_up_to = self._passed
        if not held or isinstance(source, Memory):
            return held, 0, 0
        # Messages for held exchanges are skipped only once, however many there are.
        start = passed_up_to if held == passed_over and not self._refusals.has_paused else 0
        return held, start, source.last()

    def _send(self, ahead: deque[Entry], link: "AmqpLink") -> bool:
        """Send as many of the messages in `ahead` as may be unacknowledged together; return True if that was all."""
        while ahead and link.has_room:
            if self._refusals.goes_alone(ahead[0]) and link.unsettled:
                return False
            entry = ahead.popleft()
            if self._refusals.is_due(entry) and entry.seq not in self._unremoved:
                link.send(entry.seq, entry.message)
        return not ahead

    def _blame(
        self,
        journal: Journal | Memory | None,
        link: "AmqpLink",
        casualties: Mapping[int, Message],
        error: BusError | ConfigurationError,
    ) -> None:
        """Attribute a closed channel or connection to a message if there is only one; else mark all as suspects."""
        if len(casualties) > 1:
            self._refusals.suspect(casualties)
            return
        ((seq, message),) = casualties.items()
        source = self._memory if seq in self._memory or journal is None else journal
        if isinstance(error, BusRefusedError) and link.is_about_destination(error):
            self._hold(message.exchange, str(error))
        else:
            self._note_refusal(source, seq, str(error))

    def _remove_confirmed(self, source: Journal | Memory) -> None:
        """Remove confirmed messages; those that cannot be removed are remembered, and not sent again."""
        # Only the source's own messages: the journal may be unable to remove rows at a time when the memory can.
        confirmed = {seq for seq in self._unremoved if (seq in self._memory) == (source is self._memory)}
        if confirmed:
            source.remove_confirmed(confirmed)
            self._unremoved -= confirmed

    def _settle(self, source: Journal | Memory, link: "AmqpLink") -> bool:
        """Process the broker's acknowledgements and refusals, and return True if there were any."""
        settled = link.settle(_LOCK_POLL_SECONDS)
        self._note_blocking(source, link)
        if settled.confirmed:
            self._unremoved.update(settled.confirmed)
            try:
                self._remove_confirmed(source)
            except JournalError:
                # The pending acknowledgements are received first, or their messages would be sent again.
                if not link.unsettled:
                    raise
            self._refusals.forget(settled.confirmed, settled.exchanges)
            self._failures = 0
            self._note_recovery(source)
        lacking = self._restore(link) if settled.refused else None
        for seq, reason in settled.refused:
            if lacking is not None and seq in settled.returned:
                # Just after a broker's start its queues do not exist yet, so the refusal is not the message's fault.
                self._hold(settled.returned[seq], f"{reason}: {lacking}")
            else:
                self._note_refusal(source, seq, reason)
        has_progress = bool(settled.confirmed or settled.refused)
        if has_progress:
            self._on_progress()
        return has_progress

    @property
    def _own_failure(self) -> str | None:
        """Why events are not delivered though the broker works; no caller waits for other exchanges."""
        return self._refusals.reasons.get(self._bus.event_exchange)

    def _hold(self, exchange: str, reason: str) -> None:
        self._refusals.hold(exchange, reason)
        self._bus_failure = self._own_failure
        self._tell(reason)
        self._on_progress()

    def _note_refusal(self, source: Journal | Memory, seq: int, reason: str) -> None:
        if source.note_refusal(seq, reason, max_tries=MAX_TRIES):
            self._refusals.forget([seq], [])
            self._set_aside += 1
            # Further messages with the same reason are not logged.
            if reason not in self._told_reasons and len(self._told_reasons) < _MAX_REASONS:
                self._told_reasons.add(reason)
                logger.warning("message %s of %s is set aside: %s", seq, self._bus.journal_path, reason)
        else:
            self._refusals.pause(seq)

    def _restore(self, link: "AmqpLink") -> BusError | None:
        """Create the topology that the refused messages lack; return an error if that is temporarily impossible."""
        now = time.monotonic()
        if now >= self._restored_at + _RESTORE_SECONDS:
            self._lacking = self._bus.restore(link)
            is_answer = self._lacking is None or link.is_about_rights(self._lacking)
            if is_answer and link.unseen:
                # This happens just after the broker's start, for an account that may not query these objects.
                unseen = ", ".join(link.unseen)
                self._lacking = BusUnreachableError(f"this account may not ask whether {unseen} can be used now")
            elif self._lacking is not None and is_answer:
                if self._restored_at == -math.inf:
                    logger.warning("messages are refused, and the topology they need cannot be made: %s", self._lacking)
                self._lacking = None
            self._restored_at = now
        return self._lacking

    def _note_blocking(self, source: Journal | Memory, link: "AmqpLink") -> None:
        """Note that the broker blocks publishers, so that neither this process nor later ones wait for it."""
        blocking = _blocking(link)
        if blocking is not None and self._bus_failure is None:
            source.unreachable_until = time.time() + UNREACHABLE_SECONDS
            self._bus_failure = blocking
            self._tell(blocking)
            self._on_progress()
        elif blocking is None:
            self._bus_failure = self._own_failure

    def _tell(self, reason: str) -> None:
        """Log a warning with the reason why events are not delivered, once for as long as it lasts."""
        told = _told.setdefault(self._bus.journal_path, set())
        if reason not in told:
            told.add(reason)
            where = "memory" if len(self._memory) else self._bus.journal_path
            logger.warning("%s. Events are kept in %s until it takes them.", reason, where)

    def _note_recovery(self, source: Journal | Memory) -> None:
        if source.unreachable_until:
            source.unreachable_until = 0
        if not self._refusals.reasons and _told.pop(self._bus.journal_path, None) is not None:
            logger.info("%s can be reached again", self._bus.where)

    def tell_of(self, waiting: int) -> None:
        """Log how many messages are left in the outbox, unless this process has logged the reason before."""
        path = self._bus.journal_path
        if path not in _told:
            reason = self.failure or f"{self._bus.where} has not confirmed them in time"
            _told[path] = {reason}
            logger.warning("events that wait in %s: %s. %s", path, waiting, reason)


def _blocking(link: "AmqpLink") -> str | None:
    return f"{link.where} blocks publishers: {link.blocked_reason}" if link.blocked_reason else None
