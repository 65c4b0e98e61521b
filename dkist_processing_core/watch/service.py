"""
The process of the watcher: it keeps the store of runs, judges it each second, asks the engine, and notifies.

Not here: one judgement (judge), and running several consumers in one process (consumer.group).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.listening import complete_until
from dkist_processing_core.consumer import Consumer
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.consumer.exposing import serving_at
from dkist_processing_core.consumer.group import Group
from dkist_processing_core.consumer.member import Member
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.inbox.timers import next_time
from dkist_processing_core.metrics.measurement import Measurement
from dkist_processing_core.notify.consumers import consumers as consumers_of_routes
from dkist_processing_core.reconcile.reconciler import Reconciler, is_configured
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.watch.expect import Expected
from dkist_processing_core.watch.judge import Judge
from dkist_processing_core.watch.measures import Measures
from dkist_processing_core.watch.overdue import IDLE_SECONDS
from dkist_processing_core.watch.starts import Starts

NAME = "dkist-core.watch"
"""The name of the consumer of which one process at a time judges a store."""
RECONCILE_NAME = "dkist-core.reconcile"
RECONCILE_SECONDS = 300.0
"""The default of the time between two comparisons with the engine."""
_JUDGE_SECONDS = 1.0


class Watcher:
    """The watcher of one store. `run` has its threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        expected: Sequence[Expected] = (),
        routes: Path | None = None,
        idle_after: float = IDLE_SECONDS,
        reconcile_every: float = RECONCILE_SECONDS,
    ) -> None:
        """
        Store what is watched. No connection is opened.

        Args:
            settings: The settings of this process.
            expected: The starts of runs that are expected.
            routes: The file of the routes by which people are notified; None for no notices.
            idle_after: The time without a report after which a run that runs no attempt is overdue, in seconds.
            reconcile_every: The time between two comparisons with Airflow, in seconds; 0 for none.

        Raises:
            ConfigurationError: A route is wrong.
        """
        self._settings = settings
        self._expected = expected
        self._idle_after = idle_after
        self._reconcile_every = reconcile_every if is_configured(settings) else 0.0
        self._notifying = [] if routes is None else consumers_of_routes(settings, routes)
        self._measures = Measures(tuple(each.workflow for each in expected))
        self._reconciler: Reconciler | None = None
        self._group = Group(settings)

    def stop(self) -> None:
        """Make `run` return in good order. Any thread and any signal handler may call this."""
        self._group.stop()

    def run(self, *, health: str | None = None, listen: str | None = None) -> None:
        """
        Watch until SIGTERM, SIGINT or `stop`. A bus or a database that cannot be reached is waited for.

        Args:
            health: Where the health is served, as for `Consumer.run`.
            listen: Where health and metrics are served, instead.

        Raises:
            DKISTProcessingCoreError: A part of the watcher has ended by this error, and the others in good order.
        """
        with ExitStack() as stack:
            self._group.run(
                lambda: self._members(stack),
                sources=[self._measure],
                facts=self._facts,
                serving=serving_at(health=health, listen=listen),
            )

    def _members(self, stack: ExitStack) -> Iterator[Member]:
        """Yield the consumers; what they use is closed with the stack, after their end."""
        found = self._group.when_reachable(self._open_store)
        if found is None:
            return
        collector, member, starts, opened = found
        stack.push(opened)
        publisher = stack.enter_context(Publisher.open(self._settings))
        yield member
        yield Member(self._judging(collector, publisher, starts))
        if self._reconcile_every:
            reconciler = self._reconciler = stack.enter_context(closing(Reconciler(collector)))
            yield Member(self._reconciling(collector, publisher, reconciler))
        for consumer in self._notifying:
            yield Member(consumer)

    def _open_store(self) -> "_Store":
        with ExitStack() as opening:
            collector = opening.enter_context(Collector(self._settings))
            member = opening.enter_context(collector.service())
            starts = Starts(self._expected, _judged_until(collector))
            return _Store(collector, member, starts, opening.pop_all())

    def _judging(self, collector: Collector, publisher: Publisher, starts: Starts) -> Consumer:
        judge = Judge(
            collector,
            publisher,
            starts,
            idle_after=self._idle_after,
            measures=self._measures,
            secrets=secrets_in(self._settings),
        )
        consumer = Consumer(NAME, settings=self._settings)
        consumer.has_spans = False
        consumer.every(_JUDGE_SECONDS)(judge.judge)
        consumer.shared_metrics.append(judge.measurements)
        return consumer

    def _reconciling(self, collector: Collector, publisher: Publisher, reconciler: Reconciler) -> Consumer:
        consumer = Consumer(RECONCILE_NAME, settings=self._settings)
        consumer.has_spans = False

        @consumer.every(self._reconcile_every)
        def reconcile() -> None:
            with collector.connection() as connection:
                until = complete_until(connection, archive_of(collector.bus))
            if until is not None:
                reconciler.reconcile(publisher, as_of=datetime.fromtimestamp(until, UTC))

        return consumer

    def _measure(self) -> list[Measurement]:
        reconciler = self._reconciler
        return [*self._measures.measurements(), *([] if reconciler is None else reconciler.measurements())]

    def _facts(self) -> dict[str, object]:
        until = self._measures.judged_until
        return {"judgedUntil": None if until is None else datetime.fromtimestamp(until, UTC).isoformat()}


class _Store(NamedTuple):
    """The open store, and what was read from it."""

    collector: Collector
    member: Member
    starts: Starts
    stack: ExitStack


def _judged_until(collector: Collector) -> datetime:
    """Return the time up to which earlier processes have judged the store, by its records; now without one."""
    now = time.time()
    with collector.connection() as connection:
        due = next_time(connection, NAME, Judge.judge.__name__)
        until = complete_until(connection, archive_of(collector.bus))
    if due is None:
        return datetime.fromtimestamp(now, UTC)
    return datetime.fromtimestamp(min(now, due, due if until is None else until), UTC)
