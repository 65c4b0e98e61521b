"""
The one way out: events become messages in the journal, and the journal is drained to the bus.

Not here: how the broker is spoken to (bus), and when something is published (lifecycle, local, callbacks).
"""

import os
import threading
import time
from typing import TYPE_CHECKING, Self, cast

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus, Journal, Message, open_bus, to_failure_message, to_message
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event, RecipeRunFailureMessage

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp_bus import AmqpBus
    from dkist_processing_core.drain import Drainer

_POLL_SECONDS = 0.05


class Publisher:
    """
    Publishes events: on disk when `publish` returns, on their way to the bus from then on.

    Safe to use from several threads, and after a fork. It takes the bus it is given; `Publisher.open` makes one from
    settings. Whoever opens a publisher closes it.
    """

    def __init__(self, bus: Bus, *, tracer: trace.Tracer | None = None) -> None:
        """
        Open the journal of `bus`, and start to deliver what it holds where the bus is remote.

        Raises
        ------
        JournalError
            where the journal cannot be opened.

        """
        self.bus = bus
        self._tracer = tracer or trace.NoOpTracer()
        self._inherited: list[object] = []
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._progress = threading.Condition()
        self._journal: Journal = self.bus.open_journal()
        self._own: tuple[int, int] | None = None
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
        return cls(open_bus(settings), tracer=tracer)

    def publish(self, *events: Event) -> None:
        """
        Publish events, in one transaction: when this returns they are on disk, and will arrive.

        Raises
        ------
        JournalError
            where they cannot be kept.

        """
        messages = [to_message(event, self.bus.event_exchange) for event in events]
        for message in messages:
            with self._tracer.start_as_current_span(
                f"publish {message.exchange}",
                kind=trace.SpanKind.PRODUCER,
                attributes=semconv.publish_attributes(
                    message.exchange,
                    message.routing_key,
                    message.properties.message_id,
                    message.properties.correlation_id,
                ),
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
            seqs = self._journal.append(messages, once=once)
            if seqs:
                self._own = (self._own[0] if self._own else seqs[0], seqs[-1])
        if self._drainer is not None:
            self._drainer.wake()

    def flush(self, timeout: float) -> bool:
        """
        Wait until the bus has everything that this publisher was given, for at most `timeout` seconds.

        Returns at once where the bus is known not to answer. Whatever it has not got stays in the journal.
        """
        deadline = time.monotonic() + timeout
        while self.is_pending:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or (self._drainer is not None and self._drainer.failure is not None):
                return False
            with self._progress:
                # Another process may be the one that delivers, and cannot notify this one.
                self._progress.wait(min(remaining, _POLL_SECONDS))
        return True

    @property
    def is_pending(self) -> bool:
        """Whether the bus still lacks something that this publisher was given."""
        if self._own is None or self._drainer is None:
            return False
        with self._lock:
            return self._journal.holds(*self._own)

    def close(self, timeout: float = 0.0) -> None:
        """Flush for at most `timeout` seconds, then let go."""
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        if self._drainer is not None and self._pid == os.getpid():
            self._drainer.stop(max(0.05, deadline - time.monotonic()))
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
