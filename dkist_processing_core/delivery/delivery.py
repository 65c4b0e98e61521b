"""
The delivery of the messages of one source, the journal or the queue in memory, over one connection to the broker.

Not here: opening connections and pausing after their end (drainer), and AMQP itself (bus.amqp).
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.backlog import Backlog
from dkist_processing_core.delivery.connection_tries import BusStalledError
from dkist_processing_core.delivery.outbox_warnings import OutboxWarnings
from dkist_processing_core.errors import (
    BusError,
    BusRefusedError,
    ConfigurationError,
    JournalError,
)
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink
    from dkist_processing_core.delivery.send_measures import SendMeasures

UNREACHABLE_SECONDS = 30.0
"""For how many seconds no process of this host tries a broker again that could not be reached."""
_SETTLE_SECONDS = 0.1
_STALLED_SECONDS = 10.0
_MARK_SECONDS = 1.0
# At its end a delivery waits for acknowledgements if the last one is no older than this; the caller of `Drainer.stop`
# limits the whole wait.
_LAST_ANSWERS_SECONDS = 0.3


class Delivery:
    """Sends the messages of one backlog over one connection, and processes the broker's answers."""

    def __init__(
        self,
        bus: AmqpBus,
        link: "AmqpLink",
        warnings: OutboxWarnings,
        backlog: Backlog,
        *,
        end: SignalSafeFlag,
        on_progress: Callable[[], None],
        measures: "SendMeasures | None" = None,
    ) -> None:
        """Send nothing yet; a raised `end` ends each `run`, and `on_progress` is called after each answer."""
        self._measures = measures
        self._bus = bus
        self._link = link
        self._backlog = backlog
        self._refusals = backlog.refusals
        self._warnings = warnings
        self._end = end
        self._on_progress = on_progress
        self._is_blocked = False
        self._last_answer = 0.0
        self._mark_read = -math.inf
        self.has_confirmed = False
        """Whether the broker has confirmed a message."""

    def run(self) -> None:
        """
        Send messages and process the broker's answers until no message is due.

        Raises:
            BusError: The connection is lost or unusable.
            JournalError: The source cannot be read or written.
        """
        try:
            self._run_on_link()
        except BaseException:
            with contextlib.suppress(JournalError):
                self._backlog.close()
            raise
        self._backlog.close()

    def _run_on_link(self) -> None:
        link = self._link
        try:
            while not self._end.is_raised:
                try:
                    self._run_on_channel()
                except BusRefusedError as error:
                    if not (link.is_connected and link.unsettled_messages):
                        raise
                    # The broker closes the channel at a message that it refuses for its content; this drops
                    # the later messages as well.
                    casualties = link.reopen()
                    self._settle()
                    self._refusals.attribute(self._backlog.source, link, casualties, error)
                    self._on_progress()
                    # The exchange may have been deleted. If this user may not create it, the refusal gave the reason.
                    self._bus.restore(link, bindings=False)
                else:
                    break
            self._receive_last_answers()
        except (BusError, ConfigurationError) as error:
            if link.unsettled_messages and link.was_closed_for_a_message:
                self._refusals.attribute(self._backlog.source, link, link.unsettled_messages, error)
                self._on_progress()
            raise

    def _run_on_channel(self) -> None:
        link, backlog = self._link, self._backlog
        backlog.begin()
        if self._measures is not None:
            self._measures.begin()
        self._last_answer = time.monotonic()
        while not self._end.is_raised:
            while link.has_room and (entry := backlog.next(is_alone=not link.unsettled)) is not None:
                if self._measures is not None:
                    self._measures.note_sent(entry.seq, entry.message.exchange)
                link.send(entry.seq, entry.message)
            if backlog.is_at_end and not (link.unsettled or link.has_news or link.blocked_reason):
                backlog.end()
                return
            self._settle()
            if time.monotonic() - self._last_answer > _STALLED_SECONDS:
                # Another process may succeed, so this one releases the lock.
                raise BusStalledError(blocking_of(link) or f"{link.where} confirms nothing")

    def _receive_last_answers(self) -> None:
        """Wait for the last answers while the broker answers: otherwise the next process sends those messages again."""
        link = self._link
        while link.unsettled and link.is_connected and not link.blocked_reason:
            if time.monotonic() > self._last_answer + _LAST_ANSWERS_SECONDS:
                return
            self._settle()

    def _settle(self) -> None:
        """Wait a short time for confirms and refusals, and process them."""
        link, backlog = self._link, self._backlog
        settled = link.settle(_SETTLE_SECONDS)
        if self._measures is not None:
            self._measures.note_answered(settled.confirmed, [number for number, _ in settled.refused])
        self._record_blocking()
        has_removed = False
        try:
            has_removed = backlog.confirm(settled.confirmed, is_last=not link.unsettled)
        except JournalError:
            # Receive the remaining answers first: otherwise those messages would be sent again.
            if not link.unsettled:
                raise
        self._refusals.process(backlog.source, link, settled)
        if settled.confirmed:
            self.has_confirmed = True
            self._remove_mark()
            if not self._refusals.reasons:
                self._warnings.report_recovery(self._bus.where)
        if settled.confirmed or settled.refused:
            self._last_answer = time.monotonic()
        if has_removed or settled.refused:
            self._on_progress()

    def _remove_mark(self) -> None:
        """Remove the mark that the broker cannot be reached, which another process may have set at any time."""
        now, source = time.monotonic(), self._backlog.source
        if now > self._mark_read + _MARK_SECONDS:
            self._mark_read = now
            if source.unreachable_until:
                source.unreachable_until = 0

    def _record_blocking(self) -> None:
        """Note that the broker blocks publishers, so that neither this process nor later ones wait for it."""
        reason = blocking_of(self._link)
        if reason is not None and not self._is_blocked:
            self._backlog.source.unreachable_until = time.time() + UNREACHABLE_SECONDS
            self._mark_read = -math.inf
            self._warnings.report_failure(reason)
            self._on_progress()
        self._is_blocked = reason is not None


def blocking_of(link: "AmqpLink | None") -> str | None:
    """Return why the broker blocks publishers, in words for an operator; None if it does not, or without a link."""
    if link is None or not link.blocked_reason:
        return None
    return f"{link.where} blocks publishers: {link.blocked_reason}"
