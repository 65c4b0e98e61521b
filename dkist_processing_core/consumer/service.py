"""
The service of a consumer: the threads that receive, handle and keep time, from their start to their end in good order.

It is long because the ends of all threads depend on one another. Not here: what each of them does in one step (intake,
worker, timers).
"""

import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Self

from dkist_processing_core.bus import Bus, open_bus
from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.consumer.declaration import Declaration
from dkist_processing_core.consumer.event_loop import EventLoop
from dkist_processing_core.consumer.handlers import Called, wanting
from dkist_processing_core.consumer.intake import Intake
from dkist_processing_core.consumer.measures import Measures
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.consumer.process_spans import ProcessSpans
from dkist_processing_core.consumer.timers import Timers
from dkist_processing_core.consumer.worker import Handled, Worker
from dkist_processing_core.errors import InboxError, InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database, Inbox, Rules, Stored
from dkist_processing_core.metrics.measurement import Measurement
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

# How often a worker looks for rows that other processes have stored or released.
_LOOK_SECONDS = 0.5
_IDLE_LOOK_SECONDS = 0.02
# How long the functions of an author may take to return before the log names them.
_LONG_SECONDS = 2.0
logger = logging.getLogger("dkist_processing_core.consumer")


def rules_of(consumer: Declaration) -> Rules:
    """Return the rules of a consumer's rows."""
    return Rules(
        name=consumer.name,
        ordered=consumer.is_ordered,
        every_report=consumer.every_report,
        handles_on_arrival=consumer.handles_on_arrival,
        doubted=consumer.doubted,
        provisional_after=consumer.provisional_after,
        max_tries=consumer.max_tries,
        max_starts=consumer.max_starts,
        first_pause=consumer.first_pause,
        longest_pause=consumer.longest_pause,
    )


class ConsumerService:
    """One process of a consumer. `run` has its threads; a test may instead call the steps of its parts in turn."""

    def __init__(
        self,
        consumer: Declaration,
        bus: Bus,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        random: random_module.Random | None = None,
        steps: Callable[[str], None] = lambda _: None,
        since: datetime | bool | None = None,
        workers: int | None = None,
        spans: ProcessSpans | None = None,
        measures: Measures | None = None,
        outage: Outage | None = None,
    ) -> None:
        """
        Store the parts. Nothing is received or claimed yet.

        Args:
            consumer: The handlers and the rules.
            bus: The bus to receive from.
            database: The open database of its inbox.
            clock: The time, in seconds since 1970.
            random: It spreads the pauses before further tries.
            steps: It is called with the name of each step that a worker or the intake has made.
            since: The start of past events to take in; True for all.
            workers: The number of workers, instead of the consumer's.
            spans: The spans of the calls of handlers, and the identity of their log records; None for neither.
            measures: The measures of this process, if metrics are served or sent.
            outage: The outage of the database, if other consumers of this process share it.
        """
        self.consumer = consumer
        self.bus = bus
        self.database = database
        self.inbox = Inbox(database, rules_of(consumer), clock=clock, random=random)
        self._measures = measures
        self._clock = clock
        self.outage = outage or Outage(f"the inbox {database.where}")
        self.handled = Handled()
        self._arrived = Bell()
        self._end = SignalSafeFlag()
        self._errors: list[BaseException] = []
        self._has_waited = False
        self._loop = EventLoop(self._end_with)
        self._spans = spans
        self.intake = (
            Intake(
                bus,
                self.inbox,
                consumer.patterns,
                wants=consumer.wants,
                database=self.outage,
                on_stored=self._note_stored,
                steps=steps,
                since=since,
                secrets=database.secrets,
                is_ending=self._is_ending,
                measures=measures,
                on_caught_up=consumer.on_caught_up,
                clock=clock,
                handle=self._handle_on_arrival if consumer.handles_on_arrival else None,
            )
            if consumer.handlers and consumer.receives
            else None
        )
        self.workers = [
            Worker(
                self.inbox,
                self._wanting,
                batch_size=consumer.batch_size,
                database=self.outage,
                handled=self.handled,
                steps=steps,
                loop=self._loop,
                secrets=database.secrets,
                spans=spans,
                measures=measures,
            )
            for _ in range(workers or consumer.workers)
        ]
        self.timers = Timers(
            database,
            consumer.name,
            consumer.timers,
            may_work=self.inbox.become_claimer,
            is_ending=self._is_ending,
            outage=self.outage,
            clock=clock,
            loop=self._loop,
        )

    @classmethod
    def open(
        cls,
        consumer: Declaration,
        settings: Settings,
        *,
        since: datetime | bool | None = None,
        workers: int | None = None,
        end: SignalSafeFlag | None = None,
        is_measured: bool = False,
        outage: Outage | None = None,
    ) -> Self | None:
        """
        Return the service of a consumer when its database can be reached; None if `end` is raised before.

        It measures what it does if that `is_measured`. An `outage` is given by consumers of one process that share it.
        """
        end = end or SignalSafeFlag()
        opening = outage or Outage("the inbox")
        while not end.is_raised:
            try:
                database = Database.open(consumer.inbox, settings)
            except InboxUnavailableError as error:
                end.wait(opening.begin(error))
                continue
            opening.end()
            service = cls(
                consumer,
                bus := open_bus(settings),
                database,
                since=since,
                workers=workers,
                spans=ProcessSpans.open(settings, consumer.name, bus) if consumer.has_spans else None,
                measures=Measures(consumer.name, bus) if is_measured else None,
                outage=outage,
            )
            service._end = end
            return service
        return None

    def _wanting(self, event: Event) -> list[Called]:
        return wanting(self.consumer.handlers, event)

    def _handle_on_arrival(self, events: Sequence[Event], connection: "Connection") -> None:
        called, size = self.consumer.handlers[0].called, self.consumer.batch_size
        for first in range(0, len(events), size):
            with nullcontext() if self._measures is None else self._measures.calling(called):
                part = events[first : first + size]
                called.call(part, transaction=connection, loop=self._loop, secrets=self.database.secrets)

    def _note_stored(self, stored: Stored) -> None:
        if stored.is_handled:
            self.handled.done += stored.new - stored.dead
        elif stored.new:
            self._arrived.ring()

    def _is_ending(self) -> bool:
        return self._end.is_raised

    def stop(self) -> None:
        """Make `run` return when the events in hand are finished. Any thread and any signal handler may call this."""
        self._end.raise_()

    def run(self, *, until_idle: bool = False, within: AbstractContextManager[object] | None = None) -> None:
        """
        Receive and handle until `stop`, or until nothing is left to do.

        Args:
            until_idle: Return when nothing is left to do.
            within: A context to run in, such as that of a server of its health; its error ends the service.

        Raises:
            BusError, InboxError: The bus or the database refuses the consumer.
        """
        name, began = self.consumer.name, time.monotonic()
        logger.info("the consumer %r begins, with the inbox %s", name, self.database.where)
        threads = [self._thread(f"worker-{number}", self._work, worker) for number, worker in enumerate(self.workers)]
        if self.intake is not None:
            threads.append(self._thread("intake", self._receive, self.intake))
        if self.consumer.timers:
            threads.append(self._thread("timers", self._keep_time, began if until_idle else None))
        try:
            with ExitStack() as stack:
                stack.enter_context(within or nullcontext())
                if self._spans is not None:
                    stack.enter_context(self._spans.identified_records())
                for thread in threads:
                    thread.start()
                    stack.callback(self._wait_for, thread)
                stack.callback(self._ring_end)
                while not self._end.wait(_IDLE_LOOK_SECONDS if until_idle else None):
                    if until_idle and self._is_idle(began):
                        self._note_past_left()
                        break
        finally:
            self.close()
        logger.info(
            "the consumer %r has ended; handled: %d, failed tries: %d, dead: %d",
            name,
            self.handled.done,
            self.handled.failed,
            self.handled.dead,
        )
        if self._errors:
            raise self._errors[0]

    def measure_process(self) -> list[Measurement]:
        """Return what is known without the database, if it is measured."""
        backlog = None if self.intake is None else self.intake.backlog
        return [] if self._measures is None else self._measures.of_process(self._outages(), backlog)

    def measure_inbox(self) -> list[Measurement]:
        """
        Return what the inbox has, if it is measured.

        Raises:
            InboxUnavailableError: It cannot be read now.
        """
        return [] if self._measures is None else self._measures.of_inbox(self.database, self._clock())

    def _outages(self) -> dict[str, bool]:
        return {"bus": self.intake is not None and self.intake.is_disturbed, "inbox": self.outage.is_going_on}

    def report(self) -> tuple[bool, dict[str, object]]:
        """Return whether bus and database can be used and nothing has failed, and the facts about this process."""
        outages, fault = self._outages(), self.consumer.fault()
        facts: dict[str, object] = {
            "consumer": self.consumer.name,
            **{what: "unavailable" if is_out else "ok" for what, is_out in outages.items()},
            "receives": self.intake is not None and self.intake.is_receiving,
            "handled": self.handled.done,
            "failedTries": self.handled.failed,
            "dead": self.handled.dead,
            **({} if fault is None else {"fault": fault}),
        }
        return fault is None and not any(outages.values()), facts

    def _thread(self, what: str, target: Callable[..., None], *values: object) -> threading.Thread:
        def run() -> None:
            try:
                target(*values)
            except BaseException as error:  # noqa: BLE001 - it is raised in the thread that called `run`
                self._end_with(error)

        return threading.Thread(target=run, name=f"dkist-core-{what}", daemon=True)

    def _end_with(self, error: BaseException) -> None:
        self._errors.append(error)
        self._end.raise_()

    def _wait_for(self, thread: threading.Thread) -> None:
        """Wait for the end of a thread, and log once what keeps the consumer from its end."""
        thread.join(0.0 if self._has_waited else _LONG_SECONDS)
        if thread.is_alive() and not self._has_waited:
            self._has_waited = True
            calls = [call for call in (*(each.call for each in self.workers), self.timers.call) if call is not None]
            if calls:
                awaited = f"its functions have returned: {', '.join(calls)}"
                after = "they are called again at the next start"
            else:
                awaited, after = f"{self.bus.where} or the inbox has answered", "no event is lost"
            msg = "the consumer %r ends when %s; another signal ends it at once, and %s"
            logger.warning(msg, self.consumer.name, awaited, after)
        thread.join()

    def _ring_end(self) -> None:
        self._end.raise_()
        self._arrived.ring()

    def _receive(self, intake: Intake) -> None:
        while not self._end.is_raised:
            pause = intake.step()
            if pause:
                self._arrived_pause(pause)

    def _arrived_pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._end.is_raised and (rest := until - time.monotonic()) > 0:
            self._arrived.wait(self._arrived.count, rest)

    def _work(self, worker: Worker) -> None:
        try:
            while not self._end.is_raised:
                count = self._arrived.count
                pause = worker.step()
                if pause:
                    self._arrived_pause(pause)
                elif pause is None:
                    self._arrived.wait(count, self._until_due())
        finally:
            with suppress(InboxError):
                # If this fails, they are those of a consumer that died.
                worker.release()

    def _until_due(self) -> float:
        with suppress(InboxUnavailableError):
            due = self.inbox.next_due()
            if due is not None:
                return min(_LOOK_SECONDS, max(_IDLE_LOOK_SECONDS, due - time.time()))
        return _LOOK_SECONDS

    def _keep_time(self, ends_when_idle_since: float | None) -> None:
        while not self._end.is_raised:
            pause = self.timers.step()
            if ends_when_idle_since is not None:
                # Work that takes longer than its interval is due again at once.
                if self._is_idle(ends_when_idle_since):
                    self._end.raise_()
                pause = min(pause, _LOOK_SECONDS)
            self._arrived_pause(pause)

    def _note_past_left(self) -> None:
        if self.intake is not None and self.intake.has_past_left:
            msg = (
                f"another process receives for the consumer {self.consumer.name!r}, and the past events were not taken "
                "in; end that process, or try again when it has ended"
            )
            self._errors.append(InboxError(msg))

    def _is_idle(self, began: float) -> bool:
        """Return True if nothing was left to take in, and workers and timers have looked for work after that."""
        since = began if self.intake is None else self.intake.quiet_at
        if since is None:
            return False
        since = max(since, *(worker.finished_at for worker in self.workers))
        looked_at = [worker.idle_at for worker in self.workers]
        if self.consumer.timers:
            looked_at.append(self.timers.looked_at)
        return all(each is not None and each >= since for each in looked_at)

    def close(self) -> None:
        """Release what the process holds; rows that it has claimed are those of a consumer that died."""
        if self.intake is not None:
            self.intake.close()
        self._loop.close()
        self.inbox.close()
        self.database.close()
        if self._spans is not None:
            self._spans.close()
