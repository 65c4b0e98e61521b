"""
The intake of a consumer: it receives batches from the bus, stores them in the inbox, and then acknowledges them.

It is long because the order of its steps, over queue, past and archive, is its whole promise. Not here: the comparison
with the archive (completeness), and handling what is stored (worker).
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from dkist_processing_core.bus import MOST_AHEAD, Bus, ReceivedMessage, Receiver
from dkist_processing_core.consumer._subscription import event_of
from dkist_processing_core.consumer.caught_up import SETTLING_SECONDS, CaughtUp, OnCaughtUp
from dkist_processing_core.consumer.completeness import Completeness
from dkist_processing_core.consumer.doubts import Doubts
from dkist_processing_core.consumer.measures import Measures
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.consumer.past import Past
from dkist_processing_core.errors import (
    BusUnreachableError,
    InboxUnavailableError,
    JournalAccessError,
    JournalError,
    JournalFolderError,
    JournalVersionError,
    UnknownEventError,
)
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Arrival, HandleEvents, Inbox, Stored
from dkist_processing_core.text import redact

RECEIVE_SECONDS = 0.25
"""How long one step waits for a message."""
_FEWEST, _MOST = 20, 500
# What a process has received and not acknowledged, and the batch that it had stored and not acknowledged.
_REPEATABLE = MOST_AHEAD + _MOST
_LARGE_BATCH_BYTES = 1024 * 1024
# The size of a batch follows the time that the database takes for one.
_FAST_SECONDS, _SLOW_SECONDS = 0.1, 0.5
_ELSEWHERE_SECONDS = 0.5
# A process that is replaced ends within a few seconds; a longer wait for another one is logged.
_LONG_SECONDS = 5.0
# Errors of the embedded bus that an operator must correct.
_FINAL = (JournalAccessError, JournalFolderError, JournalVersionError)
_PRUNED, _PRUNE_SECONDS = 500, 60.0
_MEASURE_SECONDS = 10.0
logger = logging.getLogger("dkist_processing_core.consumer")


class Intake:
    """Stores the messages of one consumer; of several processes that share its name, one receives at a time."""

    def __init__(
        self,
        bus: Bus,
        inbox: Inbox,
        patterns: Sequence[str],
        *,
        wants: Callable[[Event], bool | None],
        database: Outage,
        on_stored: Callable[[Stored], None],
        steps: Callable[[str], None],
        since: datetime | bool | None = None,
        secrets: Sequence[str] = (),
        is_ending: Callable[[], bool] = lambda: False,
        measures: Measures | None = None,
        on_caught_up: OnCaughtUp | None = None,
        clock: Callable[[], float] = time.time,
        handle: HandleEvents | None = None,
    ) -> None:
        """
        Store the parts. Nothing is opened yet.

        Args:
            bus: The bus to receive from.
            inbox: The rows of the consumer.
            patterns: The topic patterns of the events to receive.
            wants: Whether a handler wants an event; None if the event does not matter to the consumer at all.
            database: The outage of the database.
            on_stored: It is called with the result of each batch.
            steps: It is called with the name of each step.
            since: The start of past events to take in; True for all.
            secrets: What the reason of a dead letter may not show.
            is_ending: Whether the consumer is to end, so that it reads no further.
            measures: Counts what is received, if metrics are served.
            on_caught_up: It is called with each proof that the inbox has everything that was on the bus.
            clock: The time, in seconds since 1970.
            handle: Handles events in the transaction in which they are stored, instead of a worker.
        """
        self._bus = bus
        self._doubts = Doubts(inbox, settling=SETTLING_SECONDS if bus.is_remote else 0.0, also=on_caught_up)
        self._caught_up = CaughtUp(
            self._doubts.note_proof, is_remote=bus.is_remote, is_wanted=self._doubts.want_proof, clock=clock
        )
        self._inbox = inbox
        self._patterns = tuple(patterns)
        self._wants = wants
        self._database = database
        self._broker = Outage(bus.where)
        # Whether a comparison has failed once, of which the receiver may know as well.
        self._has_failed = False
        self._on_stored = on_stored
        self._handle = handle
        self._steps = steps
        self._since = since
        self._is_past_remarked = False
        # Since when (`time.monotonic`) another process receives, until that is logged.
        self._waits_since: float | None = None
        self._is_wait_remarked = False
        self._secrets = secrets
        self._is_ending = is_ending
        self._measures = measures
        self._measured_at = -math.inf
        self.backlog: int | None = None
        """How many messages waited on the bus at most ten seconds ago; None if that is not known, or not measured."""
        self._receiver: Receiver | None = None
        self._past: Past | None = None
        # How many of the next messages may be repetitions: those that were received and not acknowledged before.
        self._repeatable = _REPEATABLE
        self._completeness = Completeness(bus, inbox, self._patterns, self.store)
        # Messages that were received and not stored yet: at most one batch.
        self._batch: Sequence[ReceivedMessage] = ()
        self._size = _FEWEST
        # Since when (`time.monotonic`) it has asked in vain.
        self._silent_since: float | None = None
        self._unknown = 0
        self._prunes_at = 0.0
        self.quiet_at: float | None = None
        """When (`time.monotonic`) it last began to have nothing left to take in; None while it may have."""

    @property
    def is_receiving(self) -> bool:
        """Whether this process receives for the consumer."""
        return self._receiver is not None

    @property
    def has_caught_up(self) -> bool:
        """Whether the past events that were requested are stored."""
        return self._receiver is not None and self._past is None and self._since is None

    @property
    def has_past_left(self) -> bool:
        """Whether past events were requested that are not stored."""
        return self._since is not None

    @property
    def is_disturbed(self) -> bool:
        """Whether the bus cannot be used now."""
        return self._broker.is_going_on or (self._receiver is not None and not self._receiver.is_connected)

    def step(self, timeout: float = RECEIVE_SECONDS) -> float:
        """
        Receive, store and acknowledge at most one batch; return how many seconds to wait before the next step.

        Raises:
            BusError, JournalError: The bus refuses the consumer.
        """
        try:
            # First: while the inbox cannot be used, the backlog grows.
            self._measure()
            if not self._inbox.become_intake():
                # Its messages will be delivered to the process that receives now.
                self._caught_up.pause()
                self._close_receivers()
                self._broker.end()
                self._remark_past()
                self._remark_wait(time.monotonic())
                self._be_quiet()
                return _ELSEWHERE_SECONDS
            if self._receiver is None:
                self._open()
            else:
                self._take_in(timeout)
            self._prune()
        except InboxUnavailableError as error:
            self.quiet_at = None
            return self._database.begin(error)
        except (BusUnreachableError, JournalError) as error:
            if isinstance(error, _FINAL):
                raise
            self.quiet_at = None
            self._caught_up.note_disturbance()
            return self._pause_after(error)
        return 0.0

    def _note_stored(self, batch: Sequence[ReceivedMessage], size: int) -> None:
        """Note for the proof that a batch, of at most `size` messages, is stored, unless past events are still read."""
        if self._receiver is None or not self.has_caught_up:
            return
        is_whole = self._completeness.is_recent and not self._completeness.is_reading
        # A batch of large messages has fewer, even if more have arrived.
        is_drained = len(batch) < size and sum(len(each.message.body) for each in batch) < _LARGE_BATCH_BYTES
        self._caught_up.note_stored(self._receiver, is_drained=is_whole and is_drained)

    def _remark_past(self) -> None:
        """Log once that past events are left: among those that another process stores, they would be out of order."""
        if self.has_past_left and not self._is_past_remarked:
            self._is_past_remarked = True
            logger.warning(
                "another process receives for the consumer %r: the past events are taken in when this one receives",
                self._inbox.rules.name,
            )

    def _remark_wait(self, now: float) -> None:
        """Log once that another process has received for long: on SQLite this one does nothing meanwhile."""
        if self._waits_since is None:
            self._waits_since = now
        if self._is_wait_remarked or now - self._waits_since < _LONG_SECONDS:
            return
        self._is_wait_remarked = True
        name = self._inbox.rules.name
        if self._inbox.takes_turns:
            logger.warning("another process of the consumer %r uses its inbox: this one waits for the end of it", name)
        else:
            logger.info("another process receives for the consumer %r: this one handles what it stores", name)

    def _pause_after(self, error: Exception) -> float:
        """Return how long to wait after an error of the bus, and log it if no receiver does that."""
        if self._receiver is not None and isinstance(error, BusUnreachableError) and not self._has_failed:
            # The receiver connects again, and logs that; it may notice the outage a moment later than a comparison.
            self._has_failed = True
            return _ELSEWHERE_SECONDS
        return self._broker.begin(error)

    def _note_success(self) -> None:
        self._has_failed = False
        self._broker.end()

    def _open(self) -> None:
        self.quiet_at = self._waits_since = None
        self._is_wait_remarked = False
        if not self._completeness.begin():
            return
        # Before the past ones, so that no event is missed between them and the new ones.
        receiver = self._bus.subscribe(
            self._patterns, name=self._inbox.rules.name, in_batches=True, former=self._completeness.former
        )
        try:
            self._completeness.note_bound()
            if self._since is not None:
                self._past = Past.open(
                    self._bus, self._inbox, self._patterns, since=self._since, is_ending=self._is_ending
                )
        except BaseException:
            receiver.close()
            raise
        self._receiver = receiver
        self._repeatable = _REPEATABLE
        logger.info("the consumer %r receives from %s", self._inbox.rules.name, self._bus.where)

    def _take_in(self, timeout: float) -> None:
        source = self._receiver if self._past is None else self._past.receiver
        assert source is not None, "it was opened before"
        if not self._batch and self._completeness.is_reading:
            self._completeness.read()
            self._note_success()
            return
        if not self._batch:
            if self._silent_since is None:
                self._silent_since = time.monotonic()
            self._batch = source.receive_batch(self._size, timeout)
            self._steps("received")
            if not self._batch:
                self._note_stored((), self._size)
                self._go_on(source, self._silent_since)
                return
            self._silent_since = None
            self._note_success()
            if self._measures is not None:
                self._measures.note_received(len(self._batch))
        self.quiet_at = None
        began = time.monotonic()
        arrived = self._batch if self._past is None else self._past.unhandled(self._batch)
        # A repetition may have ended the process that received it first: a worker counts its starts.
        stored = self.store(arrived, self._handle if self._repeatable <= 0 else None)
        self._steps("stored")
        self._repeatable = _REPEATABLE if stored.repeated else self._repeatable - len(arrived)
        batch, self._batch = self._batch, ()
        size = self._size
        self._adapt(len(batch), time.monotonic() - began)
        batch[-1].acknowledge(with_earlier=True)
        self._steps("acknowledged")
        if self._past is not None:
            if batch[-1].is_new:
                # The queue has it as well, and all later ones.
                self._end_past()
            return
        self._note_stored(batch, size)
        if self._completeness.is_due(source.connections):
            self._completeness.compare()

    def _measure(self) -> None:
        """Measure the backlog every few seconds."""
        if self._measures is None or self._receiver is None or time.monotonic() < self._measured_at + _MEASURE_SECONDS:
            return
        self._measured_at = time.monotonic()
        self.backlog = self._receiver.backlog()

    def _go_on(self, source: Receiver, silent_since: float) -> None:
        """Go on after a source had nothing: from the past to new events, or to the comparison with the archive."""
        if not source.is_connected:
            # What the bus has is not known.
            self.quiet_at = self._silent_since = None
            return
        if self._past is not None:
            if source.has_caught_up(silent_since):
                self._end_past()
            return
        if self._completeness.is_due(source.connections, is_quiet=True):
            self._completeness.compare()
        self._repeatable = 0
        # An open receiver without a message is no sign that a comparison, which has failed before, would not fail.
        self._note_success()
        if self._completeness.is_done and not (self._doubts.is_any and self._caught_up.is_near):
            self._be_quiet()
        else:
            self.quiet_at = None

    def _end_past(self) -> None:
        if self._past is not None:
            self._past.end()
        self._past = self._since = self._silent_since = None

    def _prune(self) -> None:
        """Delete old keys, unless a repetition of their events may still come from the queue or the archive."""
        may_repeat = self._past is not None or self._repeatable > 0 or not self._completeness.is_done
        if not may_repeat and time.monotonic() >= self._prunes_at:
            # In small steps, since statements of others wait meanwhile.
            is_more = self._inbox.prune(_PRUNED) == _PRUNED
            self._prunes_at = time.monotonic() + (0.0 if is_more else _PRUNE_SECONDS)

    def _be_quiet(self) -> None:
        if self.quiet_at is None:
            self.quiet_at = time.monotonic()

    def store(self, batch: Sequence[ReceivedMessage], handle: HandleEvents | None = None) -> Stored:
        """Store received messages in one transaction, or handle them in it; those of unknown types are passed over."""
        arrivals = [arrival for received in batch if (arrival := self._arrival(received)) is not None]
        stored = self._inbox.store(arrivals, handle)
        self._completeness.note_stored(batch)
        self._database.end()
        if stored.dead and stored.new:
            logger.warning(
                "%s no event and became dead letters of %r: `dkist-core dead-letters list` shows the reasons",
                "1 message is" if stored.dead == 1 else f"{stored.dead} messages are",
                self._inbox.rules.name,
            )
        self._on_stored(stored)
        return stored

    def _arrival(self, received: ReceivedMessage) -> Arrival | None:
        message = received.message
        event = event_of(message)
        if isinstance(event, UnknownEventError):
            if not self._unknown:
                logger.warning("events of types that this release does not know are skipped; the first: %s", event)
            self._unknown += 1
            return None
        content_type, headers = message.properties.content_type, message.properties.headers
        if isinstance(event, Exception):
            reason = redact(str(event) or type(event).__name__, also=self._secrets)
            return Arrival(None, message.body, content_type, headers, reason=reason)
        is_wanted = self._wants(event)
        # A binding compares whole words only, and delivers events of other names as well.
        return None if is_wanted is None else Arrival(event, message.body, content_type, headers, is_wanted=is_wanted)

    def _adapt(self, length: int, seconds: float) -> None:
        if seconds > _SLOW_SECONDS:
            self._size = max(_FEWEST, self._size // 2)
        elif seconds < _FAST_SECONDS and length == self._size:
            self._size = min(_MOST, 2 * self._size)

    def _close_receivers(self) -> None:
        self._batch = ()
        self._silent_since = None
        self._completeness.close()
        if self._past is not None:
            self._past.receiver.close()
        if self._receiver is not None:
            self._receiver.close()
        self._past = self._receiver = self.backlog = None

    def close(self) -> None:
        """End the subscriptions. What was not acknowledged is delivered again."""
        self._close_receivers()
