"""
Publishing events: each becomes a message in the journal, and the journal is drained to the bus.

It is longer than most modules: its short methods are the calls of one object, and a facade would be one more hop. Not
here: storing messages (shelf), delivering them (drainer), and deciding when to publish an event (reporter).
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self, cast

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus, log_unexpected_bus, open_bus
from dkist_processing_core.delivery.guard import guard
from dkist_processing_core.delivery.publish_span import trace_publish
from dkist_processing_core.delivery.shelf import Shelf
from dkist_processing_core.delivery.wait_limit import WAIT_LIMIT_SECONDS, WaitLimit
from dkist_processing_core.errors import BusError
from dkist_processing_core.events import Event, RecipeRunFailureMessage
from dkist_processing_core.journal.message import to_failure_message, to_message
from dkist_processing_core.process import forks
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redactor

if TYPE_CHECKING:
    from opentelemetry import trace

    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.delivery.drainer import Drainer

_POLL_SECONDS = 0.05


class Publisher:
    """
    Publishes events: they are on disk when `publish` returns, and are then delivered to the bus.

    Safe to use from several threads, and after a fork. The constructor takes a bus; `Publisher.open` creates the bus
    from settings. The code that opens a publisher must close it.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        tracer: "trace.Tracer | None" = None,
        secrets: Iterable[str] = (),
        flush_timeout: float = 0.0,
        wait_limit: float = WAIT_LIMIT_SECONDS,
        delivers: bool = True,
        heeds_mark: bool = True,
        poll_seconds: float | None = None,
        keeps_older_names: bool = False,
    ) -> None:
        """
        Open the journal of a bus, and start to deliver its messages if the bus is remote.

        Args:
            bus: The destination of the messages.
            tracer: Creates a span for each event that is published.
            secrets: Texts to redact in events, in addition to those in the environment.
            flush_timeout: How long `close` waits for the bus by default, in seconds.
            wait_limit: How long a journal that other processes have locked may delay this publisher in total, in
                seconds. Messages that could not be written to it in that time are kept in a spare journal, and if that
                fails, in memory; one warning is logged.
            delivers: False if another process of this host delivers the messages, as long as this publisher can write
                to disk.
            heeds_mark: False if this process tries to connect although another one could not do so a moment ago.
            poll_seconds: Deliver the messages of other processes as well, and poll the journal for them at this
                interval.
            keeps_older_names: Give the spans the older names of attributes as well.
        """
        self.bus = bus
        self._tracer = tracer
        self._keeps_older_names = keeps_older_names
        self._secrets = list(secrets)
        self._flush_timeout = flush_timeout
        self.delivers = delivers
        """Whether this process delivers its messages itself; otherwise another process of its run does."""
        self._heeds_mark = heeds_mark
        self._poll_seconds = poll_seconds
        self._is_closed = False
        self._limit = WaitLimit(wait_limit)
        self._delivered = SignalSafeFlag()
        self._drainer: Drainer | None = None
        self._inherited: list[object] = []
        self._shelf = Shelf(bus, self._limit, on_moved=self._wake, reports_folder=lambda: self.delivers)
        forks.begin_in_forks(guard)
        forks.begin_in_forks(self)
        self._shelf.open()
        if bus.is_remote and delivers:
            self._start_drainer()

    def begin_in_fork(self) -> None:
        """
        Drop the files and the thread of the parent process; the first event opens those of this process.

        SQLite's connections, threads and locks do not survive a fork. Even closing the parent's connections is unsafe.
        """
        self._inherited += [self._shelf, self._drainer]
        self._limit = WaitLimit(self._limit.seconds)
        self._delivered = SignalSafeFlag()
        self._drainer = None
        self._shelf = Shelf(self.bus, self._limit, on_moved=self._wake, reports_folder=lambda: self.delivers)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        tracer: "trace.Tracer | None" = None,
        delivers: bool = True,
        heeds_mark: bool = True,
        poll_seconds: float | None = None,
        wait_limit: float = WAIT_LIMIT_SECONDS,
    ) -> Self:
        """
        Return a publisher on the bus that the settings name.

        If `MESH_CONFIG` names only other services, the log states once where events go, and why.
        """
        if delivers:
            log_unexpected_bus(settings)
        return cls(
            open_bus(settings),
            tracer=tracer,
            secrets=secrets_in(settings),
            flush_timeout=settings.event_flush_timeout,
            wait_limit=wait_limit,
            delivers=delivers,
            heeds_mark=heeds_mark,
            poll_seconds=poll_seconds,
            keeps_older_names=semconv.keeps_older_names(settings.core_origin.named(semconv.STABILITY_OPT_IN)),
        )

    def publish(self, *events: Event, note: str | None = None) -> None:
        """
        Publish events in one transaction. When this returns, they are on disk, and will arrive.

        If a signal handler interrupted a publisher's call and calls this, the events are on disk when the interrupted
        call returns. If handlers publish faster than the disk writes, they are on disk after one of the next calls.

        If the journal cannot be written to, the events are kept in a spare journal, and if that fails, in memory. One
        warning is logged, and the events are moved into the journal as soon as possible. A failing bus or disk raises
        no exception.

        Args:
            events: The events, of any runs.
            note: A text to be stored in the same transaction, as by `remember`.

        Raises:
            BusError: This publisher was closed.
        """
        self._check_open()
        blank = redactor(also=self._secrets)
        messages = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        if self._tracer is not None:
            for event, message in zip(events, messages, strict=True):
                trace_publish(
                    self._tracer,
                    event,
                    message,
                    is_remote=self.bus.is_remote,
                    keeps_older_names=self._keeps_older_names,
                )
        if self._shelf.append(messages, note=note):
            self._wake()

    def publish_failure(self, message: RecipeRunFailureMessage, *events: Event) -> None:
        """Publish the failure message of release 7.x and events that report it, unless this host has done so before."""
        self._check_open()
        blank = redactor(also=self._secrets)
        messages = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        messages.append(to_failure_message(message, self.bus.failure_exchange, blank=blank))
        if self._shelf.append(messages, once=True):
            self._wake()

    def _check_open(self) -> None:
        if self._is_closed:
            msg = "the publisher is closed: open another"
            raise BusError(msg)

    def remember(self, note: str) -> None:
        """Store a note on this host, if its journal can be used, for later processes."""
        if self._shelf.append((), note=note):
            self._wake()

    def remembers(self, note: str) -> bool:
        """Return True if this note was stored on this host; False if not, or if that cannot be read."""
        return self._shelf.remembers(note)

    def noted_by(self, process: int, *notes: str) -> str | None:
        """
        Return the first of `notes` that an ended process has stored, in the journal or a spare one; None without one.

        Then move its messages into the journal, as far as possible. All of this counts as waiting.
        """
        return self._shelf.noted_by(process, *notes)

    def _wake(self) -> None:
        """Notify the drainer of new messages."""
        # No other process can deliver messages from this process's memory.
        if self._drainer is None and self.bus.is_remote and (self.delivers or not self.is_on_disk):
            self._start_drainer()
        if self._drainer is not None:
            self._drainer.wake()

    def begin_delivery(self) -> None:
        """Deliver the messages of all processes from now on, since the process that has done so has ended."""
        self.delivers = True
        self._wake()

    def _start_drainer(self) -> None:
        # Imported here, since the embedded journal has nothing to drain.
        from dkist_processing_core.delivery.drainer import Drainer  # noqa: PLC0415

        bus, shelf = cast("AmqpBus", self.bus), self._shelf
        drainer = Drainer(
            bus,
            self._record_delivery,
            shelf.memory,
            shelf.handover,
            heeds_mark=self._heeds_mark,
            poll_seconds=self._poll_seconds,
        )
        # One step without a call, so that no other thread and no signal handler sets another drainer in between.
        self._drainer = self._drainer or drainer
        self._drainer.start()

    def _record_delivery(self) -> None:
        self._delivered.raise_()
        drainer = self._drainer
        if drainer is None or drainer.is_running:
            return
        # Without a drainer thread, this is called by the thread that delivers, which is inside the guard.
        if drainer.failure is not None or not self._shelf.is_pending_inside_guard:
            drainer.end_here()

    def add_loss(self, count: object) -> None:
        """Count the events that another process has lost, by its report, in the warning that `close` logs."""
        if isinstance(count, int) and count > 0:
            self._shelf.warnings.lost_by_others += count

    @property
    def unreported_loss(self) -> int:
        """How many events were lost at `close`, if another process of the run is to warn of them."""
        return self._shelf.warnings.unreported_loss

    @property
    def waited(self) -> float:
        """How many seconds calls have waited for a locked journal."""
        return self._limit.spent

    @property
    def has_journal(self) -> bool:
        """Whether the journal is open: if it cannot be used, the cause is logged with the first event."""
        return self._shelf.journal is not None

    @property
    def is_on_disk(self) -> bool:
        """Whether all published messages are on disk, in the journal or a spare one."""
        return not len(self._shelf.memory)

    @property
    def is_pending(self) -> bool:
        """Whether messages of this publisher are not known to be delivered."""
        if self._is_closed:
            return False
        return self._shelf.is_displaced or (self._drainer is not None and self._shelf.is_pending)

    def include_backlog(self) -> None:
        """Make `flush` wait for all messages now in the journal, including those of other processes."""
        self._shelf.include_backlog()
        if self._drainer is not None:
            self._drainer.wake()

    def flush(self, timeout: float) -> bool:
        """
        Wait until the bus has all messages of this publisher, for at most `timeout` seconds; return True if it has.

        Return False at once if the bus is known not to answer. Undelivered messages stay in the journal.
        """
        deadline = time.monotonic() + timeout
        drainer = self._drainer
        if drainer is not None and not drainer.is_running and self.is_pending:
            # No thread could be started.
            self._move(_POLL_SECONDS)
            # Inside the guard: a handler on the same thread could not append while this is in a transaction.
            self._shelf.run_guarded(lambda: drainer.deliver_here(deadline), otherwise=None)
        while self.is_pending:
            remaining = deadline - time.monotonic()
            patience = remaining if drainer is None and not self.is_on_disk else min(remaining, _POLL_SECONDS)
            # If all that is left is in a spare journal, it is on disk already: a longer wait is of no use.
            if not self._move(patience) and (drainer is None or (self._shelf.has_spare and self.is_on_disk)):
                return False
            if remaining <= 0 or (drainer is not None and drainer.failure is not None):
                return False
            # Another process may deliver the messages, and it cannot notify this one.
            self._delivered.wait(min(remaining, _POLL_SECONDS))
            self._delivered.lower()
        return True

    def _move(self, patience: float) -> bool:
        """Move displaced messages into the journal, for `patience` seconds; return True if none is left."""
        if not self._shelf.is_displaced:
            return True
        is_done = self._shelf.move(patience)
        if self._drainer is not None:
            self._drainer.wake()
        return is_done

    def close(self, timeout: float | None = None) -> None:
        """
        Flush for at most `timeout` seconds, minus earlier waits for the disk, then close the publisher.

        The default is `flush_timeout`; 0 does not wait for the bus. Undelivered messages stay in the journal for the
        next publisher. A second call does nothing.
        """
        if self._is_closed:
            return
        timeout = self._flush_timeout if timeout is None else timeout
        deadline = time.monotonic() + max(0.0, timeout - self.waited)
        try:
            self._shelf.append_deferred()
            if not self.is_on_disk:
                # Otherwise these messages would be lost. The disk has its own time limit: `timeout` is for the network.
                self._move(self._limit.seconds)
            is_delivered = self.flush(max(0.0, deadline - time.monotonic()))
            drainer = self._drainer
            # Displaced messages wait for the journal and not for the bus; this is logged already.
            if not is_delivered and drainer is not None and not self._shelf.is_displaced:
                is_reported = timeout > 0 or drainer.failure is not None
                if is_reported and (waiting := self._shelf.count_waiting()):
                    drainer.report_waiting(waiting)
        finally:
            self._is_closed = True
            if self._drainer is not None:
                self._drainer.stop(max(_POLL_SECONDS, deadline - time.monotonic()))
            self._shelf.close()

    def __enter__(self) -> Self:
        """Return the publisher itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the publisher."""
        self.close()
