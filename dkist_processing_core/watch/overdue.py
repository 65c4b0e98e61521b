"""
Publishing what the judge has decided about attempts and runs.

It reads no clock and no store. Not here: the facts (reading), and the decisions (judging).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import Reporter
from dkist_processing_core.watch.facts import Decision, Facts, Subject
from dkist_processing_core.watch.judging import about_attempts, about_runs
from dkist_processing_core.watch.listening import Listening

IDLE_SECONDS = 3600.0
"""The default of the time without a report after which a run that runs no attempt is overdue."""
_MOST_SECONDS_LATE = 10.0


class OverdueReports:
    """
    The reports of a watcher on what is overdue.

    Until a report has come back through the bus, the store leads to the same decision again: each is published once.
    """

    def __init__(self, publisher: Publisher, *, idle_after: float = IDLE_SECONDS, secrets: Sequence[str] = ()) -> None:
        """
        Store what is needed to publish.

        Args:
            publisher: Publishes the reports.
            idle_after: The time without a report after which a run that runs no attempt is overdue, in seconds.
            secrets: Texts that are redacted in log messages.
        """
        self._publisher = publisher
        self._idle_after = idle_after
        self._secrets = secrets
        self._published: set[tuple[Subject, int]] = set()
        self._until: float | None = None

    def publish(self, facts: Facts, now: float) -> list[Decision]:
        """
        Publish what is new, and return it.

        Args:
            facts: One state of the store.
            now: The time by the clock of the store, in seconds since 1970. If the store was last complete more than ten
                seconds before, or was not complete since the last call, alarms are withdrawn and none is raised.
        """
        before, until = self._until, facts.listening.until
        self._until = until
        # A clock that was set back shows a time again: that it is near is not enough.
        has_advanced = before is not None and until is not None and until != before
        if not has_advanced or not 0 <= now - (until or 0.0) <= _MOST_SECONDS_LATE:
            facts = replace(facts, listening=Listening())
        subjects = facts.subjects
        self._published = {each for each in self._published if each[0] in subjects}
        published: list[Decision] = []
        for decision in (*about_attempts(facts), *about_runs(facts, self._idle_after)):
            key = decision.subject, decision.sequence
            if key not in self._published and self._report(decision, datetime.fromtimestamp(now, UTC)):
                self._published.add(key)
                published.append(decision)
        return published

    def _report(self, decision: Decision, at: datetime) -> bool:
        reporter = EventReporter(Reporter.WATCHER, decision.run, publisher=self._publisher, secrets=self._secrets)
        return reporter.report(decision.event_class, at, **decision.facts)
