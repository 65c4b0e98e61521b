"""
The store and the consumers behind the pages of a dashboard, which answers requests before they are there.

Not here: opening and running them (service), and the answers (http.health, html.viewing).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.metrics.serving import HealthReport
from dkist_processing_core.metrics.snapshot import Snapshot

_UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How recent is what the store has."""

    is_bus_reachable: bool
    """False if the consumer has found that the bus cannot be reached."""
    complete_until: datetime | None
    """Until when it is known to have all reports that were on the bus; None if it never was."""


class Backend:
    """What a dashboard has opened so far. Several threads may ask it."""

    def __init__(self, site: Site) -> None:
        """Store the facts for the pages. Nothing is open yet."""
        self.site = site
        self.snapshot: Snapshot | None = None
        """The metrics of the process; None as long as no consumer runs."""
        self.report: HealthReport | None = None
        """Returns whether the consumers are well, and the facts; None as long as none runs."""
        self._collector: Collector | None = None

    @contextmanager
    def questions(self) -> Iterator[Questions]:
        """
        Ask about one state of the store.

        Raises:
            InboxUnavailableError: The store cannot be reached now.
        """
        collector = self._collector
        if collector is None:
            raise InboxUnavailableError("the store is not open yet; the dashboard tries it again and again")
        with collector.questions() as questions:
            yield questions

    def open_store(self, collector: Collector) -> None:
        """Take over the open store."""
        self.site = replace(self.site, store=collector.where)
        self._collector = collector

    @property
    def bus_state(self) -> str:
        """`ok`, `unavailable`, or `not connected yet`."""
        facts = self._facts
        return "not connected yet" if facts is None else str(facts["bus"])

    @property
    def has_fault(self) -> bool:
        """Whether the store takes in reports and cannot derive what is shown from them."""
        return "fault" in (self._facts or {})

    @property
    def _facts(self) -> Any:
        report = self.report
        consumers: Any = None if report is None else report()[1]["consumers"]
        return None if consumers is None else consumers[0]

    def stale_runs(self, questions: Questions) -> int:
        """Return the number of runs that are not kept up to date, since their reports cannot be read."""
        collector = self._collector
        return 0 if collector is None else questions.number_of_stale_runs(archive_of(collector.bus))

    def freshness(self, questions: Questions) -> Freshness:
        """Return how recent the answers to questions are."""
        collector = self._collector
        until = None if collector is None else questions.complete_until(archive_of(collector.bus))
        return Freshness(self.bus_state != _UNAVAILABLE, None if until is None else datetime.fromtimestamp(until, UTC))

    @contextmanager
    def attached(self, report: HealthReport, snapshot: Snapshot) -> Iterator[None]:
        """Report the health and the metrics of the consumers during the block."""
        snapshot.prepare()
        self.report, self.snapshot = report, snapshot
        try:
            yield
        finally:
            self.report = self.snapshot = None
