"""
Refused messages and exchanges: when they are tried again, and when a message is set aside.

An event that the broker refuses for its own content must not delay the others. A permission that an operator has
withdrawn must not cause events to be set aside. Not here: sending (delivery.delivery), and explaining a refusal
(bus.amqp.errors).
"""

import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.outbox_warnings import OutboxWarnings
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, DKISTProcessingCoreError
from dkist_processing_core.journal import Entry
from dkist_processing_core.journal.message import Message

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink
    from dkist_processing_core.bus.amqp.publishing import Settled

RETRY_SECONDS = (0.25, 2.5)
"""The pauses, in s, before a refused message is tried again; if it is refused after the last, it is set aside."""
_MAX_TRIES = len(RETRY_SECONDS) + 1
_LONGEST_HOLD_SECONDS = 10.0
_RESTORE_SECONDS = 5.0
logger = logging.getLogger(__name__)


class _Refusable(Protocol):
    def record_refusal(self, seq: int, reason: str, *, max_tries: int) -> bool: ...


class Refusals:
    """The messages and exchanges refused to one drainer; times are those of `time.monotonic`."""

    def __init__(self, bus: AmqpBus, warnings: OutboxWarnings) -> None:
        """Start without a refusal."""
        self._bus = bus
        self._warnings = warnings
        self._due: dict[int, float] = {}
        self._held: dict[str, tuple[float, int]] = {}
        self._suspects: set[int] = set()
        self._restored_at = -math.inf
        self._missing: BusError | None = None
        self.reasons: dict[str, str] = {}
        """Why an exchange is held, in words for an operator."""

    # When a message may be sent

    @property
    def held_exchanges(self) -> frozenset[str]:
        """The exchanges to which no message may be sent at present."""
        if not self._held:
            return frozenset()
        now = time.monotonic()
        return frozenset(exchange for exchange, (due, _) in self._held.items() if due > now)

    @property
    def has_paused(self) -> bool:
        """Whether single messages wait for their next try."""
        return bool(self._due)

    def due(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Return the messages that may be sent now."""
        if not self._due:
            return entries
        now = time.monotonic()
        return [entry for entry in entries if self._due.get(entry.seq, 0.0) <= now]

    def goes_alone(self, entry: Entry) -> bool:
        """Return True if a message is a suspect: one of several messages, one of which caused the channel to close."""
        return entry.seq in self._suspects

    def next_within(self, seconds: float) -> float:
        """Return in how many seconds the next refused message or exchange is due, at most `seconds`."""
        now = time.monotonic()
        # A message that is due but was not sent just now does not exist any more: another process has sent it.
        self._due = {seq: due for seq, due in self._due.items() if due > now}
        waits = [due - now for due in self._due.values()]
        waits += [due - now for due, _ in self._held.values() if due > now]
        return min([seconds, *waits])

    # The answers of the broker

    def process(self, source: _Refusable, link: "AmqpLink", settled: "Settled") -> None:
        """Process the broker's answers: record refusals, and remove the records of confirmed messages."""
        if settled.confirmed:
            self._forget(settled.confirmed, settled.exchanges)
        missing = self._restore(link) if settled.refused else None
        for seq, reason in settled.refused:
            if missing is not None and seq in settled.returned:
                # Just after a broker's start its queues do not exist yet, so the message is not the cause.
                self._hold(settled.returned[seq], f"{reason}: {missing}")
            else:
                self._record(source, seq, reason)

    def attribute(
        self, source: _Refusable, link: "AmqpLink", casualties: Mapping[int, Message], error: DKISTProcessingCoreError
    ) -> None:
        """
        Attribute a closed channel or connection to its only message; mark several messages as suspects.

        Suspects are sent one at a time, until the one that causes the broker to close the channel is known.
        """
        if len(casualties) > 1:
            self._suspects.update(casualties)
            return
        ((seq, message),) = casualties.items()
        if isinstance(error, BusRefusedError) and link.is_about_destination(error):
            self._hold(message.exchange, str(error))
        else:
            self._record(source, seq, str(error))

    def _record(self, source: _Refusable, seq: int, reason: str) -> None:
        """Note a refusal of one message: try it again after a pause, a longer one the next time, or set it aside."""
        if source.record_refusal(seq, reason, max_tries=_MAX_TRIES):
            self._forget([seq], [])
            self._warnings.report_set_aside(seq, reason)
        else:
            self._due[seq] = time.monotonic() + RETRY_SECONDS[1 if seq in self._due else 0]

    def _hold(self, exchange: str, reason: str) -> None:
        """Pause sending to an exchange, twice as long each time: the exchange is the cause, not a message."""
        _, times = self._held.get(exchange, (0.0, 0))
        pause = min(_LONGEST_HOLD_SECONDS, 2.0**times)
        self._held[exchange] = time.monotonic() + pause, times + 1
        self.reasons[exchange] = reason
        self._warnings.report_failure(reason)

    def _forget(self, seqs: Collection[int], exchanges: Collection[str]) -> None:
        """Remove messages that are settled, and exchanges that accept messages again."""
        for seq in seqs if self._due or self._suspects else ():
            self._due.pop(seq, None)
            self._suspects.discard(seq)
        if self._held:
            for exchange in exchanges:
                self._held.pop(exchange, None)
                self.reasons.pop(exchange, None)

    def _restore(self, link: "AmqpLink") -> BusError | None:
        """Create the missing topology of refused messages; return an error if that is temporarily impossible."""
        now = time.monotonic()
        if now >= self._restored_at + _RESTORE_SECONDS:
            self._missing = self._bus.restore(link)
            is_answer = self._missing is None or link.is_about_permissions(self._missing)
            if is_answer and link.unknown:
                # This happens just after the broker's start, for an account that may not query these objects.
                unknown = ", ".join(link.unknown)
                self._missing = BusUnreachableError(f"this account may not query whether {unknown} can be used now")
            elif self._missing is not None and is_answer:
                if self._restored_at == -math.inf:
                    logger.warning("messages are refused, and missing topology cannot be created: %s", self._missing)
                self._missing = None
            self._restored_at = now
        return self._missing
