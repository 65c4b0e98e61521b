"""
One judgement of the store: what is overdue, and which expected starts were missed, is published.

Not here: the decisions (judging, starts), the file of expected starts (expect), and when a judgement is due (service).
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dkist_processing_core import semconv
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.questions.begun import has_begun
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import Reporter, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Measurement, Number
from dkist_processing_core.watch.expect import Expected
from dkist_processing_core.watch.facts import Facts
from dkist_processing_core.watch.measures import IDLE, Measures
from dkist_processing_core.watch.overdue import OverdueReports
from dkist_processing_core.watch.reading import FactsReader
from dkist_processing_core.watch.starts import Missed, Starts

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Judge:
    """The judge of one store, in one process."""

    def __init__(
        self,
        collector: Collector,
        publisher: Publisher,
        starts: Starts,
        *,
        idle_after: float,
        measures: Measures,
        secrets: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Store the parts.

        Args:
            collector: The store.
            publisher: Publishes the reports.
            starts: The expected starts.
            idle_after: The time without a report after which a run that runs no attempt is overdue, in seconds.
            measures: Counts what is published.
            secrets: Texts that are redacted in log messages.
            clock: The clock of the store, in seconds since 1970.
        """
        self._collector = collector
        self._publisher = publisher
        self._starts = starts
        self._reader = FactsReader(archive_of(collector.bus), idle_after=idle_after)
        self._overdue = OverdueReports(publisher, idle_after=idle_after, secrets=secrets)
        self._measures = measures
        self._secrets = secrets
        self._clock = clock
        self._active: Counter[tuple[str, str]] = Counter()

    def judge(self) -> None:
        """
        Judge one state of the store, and publish what is new.

        Raises:
            InboxUnavailableError: The store cannot be read now.
        """
        with self._collector.connection() as connection:
            facts = self._reader.read(connection)
            until = facts.listening.until
            begun = functools.partial(_has_begun, connection)
            missed = [] if until is None else list(self._starts.missed(datetime.fromtimestamp(until, UTC), begun))
        for decision in self._overdue.publish(facts, self._clock()):
            self._measures.note_published(decision)
        for each in missed:
            if self._report(each):
                self._measures.note_missed(each.entry.workflow)
        self._measures.note_judged(facts.listening)
        self._active = Counter(_standing(facts))

    def _report(self, missed: Missed) -> bool:
        run = Run(missed.entry.workflow, missed.entry.version or "", "", None)
        reporter = EventReporter(Reporter.WATCHER, run, publisher=self._publisher, secrets=self._secrets)
        grace = missed.entry.grace / timedelta(seconds=1)
        at = datetime.fromtimestamp(self._clock(), UTC)
        return reporter.report(WorkflowOverdue, at, expected_at=missed.expected_at, grace_seconds=grace)

    def measurements(self) -> list[Measurement]:
        """
        Return how many alarms stand, as of the last judgement of this process, and how many expected starts are late.

        Raises:
            InboxUnavailableError: The store cannot be read now.
        """
        until = self._measures.judged_until
        if until is None:
            return []
        missing: Counter[str] = Counter({each.workflow: 0 for each in self._starts.entries})
        with self._collector.connection() as connection:
            begun = functools.partial(_has_begun, connection)
            for entry, is_missing in self._starts.missing(datetime.fromtimestamp(until, UTC), begun):
                missing[entry.workflow] += is_missing
        active = [
            Number(float(count), {semconv.PIPELINE_NAME: workflow, semconv.ALARM_KIND: kind})
            for (workflow, kind), count in self._active.items()
        ]
        late = [Number(float(count), {semconv.PIPELINE_NAME: workflow}) for workflow, count in missing.items()]
        return [Measurement(declarations.ALARM_ACTIVE, active), Measurement(declarations.START_MISSING, late)]


def _standing(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield workflow and kind of each alarm that stands."""
    for attempt in facts.attempts:
        if attempt.is_open:
            for alarm in attempt.alarms:
                if not alarm.withdrawn:
                    yield attempt.run.workflow_name, alarm.exceeded or "silence"
    for each in facts.runs:
        if each.is_idle and each.alarm is not None and not each.alarm.withdrawn:
            yield each.run.workflow_name, IDLE


def _has_begun(connection: "Connection", entry: Expected, first: datetime, last: datetime) -> bool:
    return has_begun(connection, entry.workflow, entry.version, first, last)
