"""
The one way out: events become messages in the journal, and the journal is drained to the bus.

Not here: how the broker is spoken to (bus), and when something is published (lifecycle, local, callbacks).
"""

import itertools
import logging
import operator
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self, cast

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus, Journal, Message, open_bus, to_failure_message, to_message
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, secrets_in
from dkist_processing_core.errors import JournalError
from dkist_processing_core.events import Event, RecipeRunFailureMessage

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp_bus import AmqpBus
    from dkist_processing_core.drain import Drainer

_POLL_SECONDS = 0.05
_MAX_UNKEPT = 10_000
WAIT_LIMIT_SECONDS = 2.0
# Of the time that a journal may cost this much goes into the first wait, so that some is left when closing.
_SHARE_OF_FIRST_WAIT = 0.5
logger = logging.getLogger(__name__)


class Publisher:
    """
    Publishes events: on disk when `publish` returns, on their way to the bus from then on.

    Safe to use from several threads, and after a fork. It takes the bus it is given; `Publisher.open` makes one from
    settings. Whoever opens a publisher closes it.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        tracer: trace.Tracer | None = None,
        secrets: Iterable[str] = (),
        wait_limit: float = WAIT_LIMIT_SECONDS,
    ) -> None:
        """
        Open the journal of `bus`, and start to deliver what it holds where the bus is remote.

        A journal that another process has locked delays this publisher by at most `wait_limit` seconds in all.

        Raises
        ------
        JournalError
            where the journal cannot be opened.

        """
        self.bus = bus
        self._tracer = tracer or trace.NoOpTracer()
        self._secrets = list(secrets)
        self._wait_limit = wait_limit
        self._inherited: list[object] = []
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._progress = threading.Condition()
        self._journal: Journal = self.bus.open_journal()
        self._has_warned = False
        self._own: tuple[int, int] | None = None
        self._unkept: deque[tuple[Message, bool]] = deque()
        self._lost = 0
        self._drainer: Drainer | None = self._start_drainer() if self.bus.is_remote else None

    def _start_drainer(self) -> "Drainer":
        # Here, not above: the embedded journal has nothing to drain.
        from dkist_processing_core import drain  # noqa: PLC0415

        drainer = drain.Drainer(cast("AmqpBus", self.bus), self._notify)
        drainer.start()
        return drainer

    @classmethod
    def open(cls, settings: DKISTProcessingCoreConfiguration, *, tracer: trace.Tracer | None = None) -> Self:
        """Return a publisher on the bus that the settings name."""
        return cls(open_bus(settings), tracer=tracer, secrets=secrets_in(settings))

    def publish(self, *events: Event) -> None:
        """
        Publish events, in one transaction: when this returns they are on disk, and will arrive.

        Where the journal cannot be written to just now, one warning says so, and they wait in memory for the next call.
        """
        messages = [to_message(event, self.bus.event_exchange, secrets=self._secrets) for event in events]
        for event, message in zip(events, messages, strict=True):
            with self._tracer.start_as_current_span(
                f"publish {message.exchange}",
                kind=trace.SpanKind.PRODUCER,
                attributes=semconv.publish_attributes(
                    message.exchange,
                    message.routing_key,
                    message.properties.message_id,
                    message.properties.correlation_id,
                    is_remote=self.bus.is_remote,
                )
                | semconv.identity_attributes(event.run, getattr(event, "task_name", None)),
            ):
                pass
        self._append(messages)

    def publish_failure(self, message: RecipeRunFailureMessage) -> None:
        """Publish the established failure message, unless this host has done so before."""
        self._append([to_failure_message(message, self.bus.failure_exchange)], once=True)

    def _append(self, messages: list[Message], *, once: bool = False) -> None:
        if self._pid != os.getpid():
            # Neither SQLite's connections nor threads nor locks survive a fork; the parent's must not even be closed.
            self._inherited += [self._journal, self._drainer]
            self._start()
        with self._lock:
            is_first = not self._unkept
            self._unkept.extend((message, once) for message in messages)
            self._keep(self._wait_limit * _SHARE_OF_FIRST_WAIT if is_first else _POLL_SECONDS)
            while len(self._unkept) > _MAX_UNKEPT:
                self._unkept.pop()
                self._lost += 1
        if self._drainer is not None:
            self._drainer.wake()

    def _keep(self, patience: float) -> None:
        """Append what memory holds, in order; what cannot be appended now stays there for the next call."""
        journal = self._journal
        waited = journal.waited
        journal.patience = max(0.0, min(patience, self._wait_limit - waited))
        try:
            while self._unkept:
                once, alike = next(itertools.groupby(self._unkept, key=operator.itemgetter(1)))
                batch = [message for message, _ in alike]
                seqs = journal.append(batch, once=once)
                for _ in batch:
                    self._unkept.popleft()
                if seqs:
                    self._own = (self._own[0] if self._own else seqs[0], seqs[-1])
        except JournalError as error:
            if not self._has_warned:
                logger.warning("%s. Events are kept in memory until it can.", error)
            self._has_warned = True
        else:
            self._has_warned = False
            if journal.waited == waited:
                # It works as it should again, and what it has cost before is not counted against it for ever.
                journal.waited = 0.0

    def _has_kept(self, patience: float) -> bool:
        if self._unkept:
            with self._lock:
                self._keep(patience)
            if self._drainer is not None:
                self._drainer.wake()
        return not self._unkept

    def flush(self, timeout: float) -> bool:
        """
        Wait until the bus has everything that this publisher was given, for at most `timeout` seconds.

        Returns at once where the bus is known not to answer. Whatever it has not got stays in the journal.
        """
        deadline = time.monotonic() + timeout
        while self.is_pending:
            remaining = deadline - time.monotonic()
            if not self._has_kept(remaining) or remaining <= 0:
                return False
            if self._drainer is not None and self._drainer.failure is not None:
                return False
            with self._progress:
                # Another process may be the one that delivers, and cannot notify this one.
                self._progress.wait(min(remaining, _POLL_SECONDS))
        return True

    @property
    def is_pending(self) -> bool:
        """Whether the bus still lacks something that this publisher was given."""
        if self._unkept:
            return True
        if self._own is None or self._drainer is None:
            return False
        with self._lock:
            return self._journal.holds(*self._own)

    def close(self, timeout: float = 0.0) -> None:
        """Flush for at most `timeout` seconds, then let go."""
        if self._pid != os.getpid():
            # What a fork was given is its parent's to close.
            return
        deadline = time.monotonic() + timeout
        try:
            # The disk has a limit of its own, and is not the network that `timeout` is for.
            self._has_kept(self._wait_limit)
            self.flush(max(0.0, deadline - time.monotonic()))
            if self._drainer is not None and self.is_pending and (timeout > 0 or self._drainer.failure is not None):
                self._drainer.tell_of(self._journal.books().pending)
        finally:
            if self._drainer is not None:
                self._drainer.stop(max(_POLL_SECONDS, deadline - time.monotonic()))
            lost = self._lost + len(self._unkept)
            self._lost = 0
            self._unkept.clear()
            if lost:
                logger.warning("events are lost, since %s could not be written to: %s", self._journal.path, lost)
            with self._lock:
                self._journal.close()

    def __enter__(self) -> Self:
        """Return the publisher itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the publisher."""
        self.close()

    def _notify(self) -> None:
        with self._progress:
            self._progress.notify_all()
