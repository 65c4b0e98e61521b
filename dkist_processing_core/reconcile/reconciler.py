"""
Rounds of reconciliation: each asks Airflow about the runs whose end is missing in the store, and publishes the ends.

Not here: the questions of a round (asking), and the events (publishing).
"""

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import ConfigurationError, EngineApiError
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Measurement, measured
from dkist_processing_core.reconcile.airflow_api import AirflowApi
from dkist_processing_core.reconcile.airflow_token import TokenSource
from dkist_processing_core.reconcile.asking import Answered, Asking, is_of_engine
from dkist_processing_core.reconcile.http_client import HttpClient, RequestsUsedUpError
from dkist_processing_core.reconcile.judgement import GRACE, Outcome
from dkist_processing_core.reconcile.publishing import publish_end
from dkist_processing_core.reconcile.rounds import Finding, Round
from dkist_processing_core.runs import State
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.identity import Run

MOST_REQUESTS = 500
"""The limit on the requests of one round."""
# What an operator may have to look after if it lasts.
_WAITING = (Outcome.RECENT, Outcome.ALIVE, Outcome.UNPROVEN, Outcome.REFUSED)
logger = logging.getLogger(__name__)


def is_configured(settings: Settings) -> bool:
    """Return True if the settings name an Airflow."""
    return settings.dkist_core_airflow_url is not None


class Reconciler:
    """Asks one Airflow about the runs of one store; it remembers from round to round what it has published."""

    def __init__(
        self, collector: Collector, *, grace: timedelta = GRACE, most_requests: int = MOST_REQUESTS, warns: bool = True
    ) -> None:
        """
        Store where to ask; no request is sent yet.

        Args:
            collector: The store.
            grace: How long a callback of Airflow has for its own report.
            most_requests: The limit on the requests of one round.
            warns: Whether the log has one warning per outage of Airflow; a command shows the problem itself.

        Raises:
            ConfigurationError: The settings name no Airflow, or no usable way to log in.
        """
        url = collector.settings.dkist_core_airflow_url
        if url is None:
            msg = (
                "DKIST_CORE_AIRFLOW_URL: found nothing, expected the URL of Airflow's API server, as "
                "https://airflow.example"
            )
            raise ConfigurationError(msg)
        self._collector = collector
        self._grace = grace
        self._client = HttpClient(url, most_requests=most_requests)
        self._api = AirflowApi(self._client, TokenSource(self._client, collector.settings))
        self._warns = warns
        self._is_out = False
        # For each run without an end: the number of the round in which Airflow was last asked about it, and the result
        # and the time of the end that was published.
        self._asked: dict[Run, int] = {}
        self._sent: dict[Run, tuple[bool, datetime | None]] = {}
        self._rounds = self._failed_rounds = self._ends = self._waiting = 0

    def reconcile(
        self,
        publisher: Publisher | None,
        *,
        as_of: datetime,
        workflow: str | None = None,
        is_proven: bool = False,
    ) -> Round:
        """
        Ask Airflow about each run without an end, and publish the missing ends.

        If Airflow does not answer, the round ends: the result has the reason, and the log has one warning per outage.

        Args:
            publisher: Publishes the ends; None for a dry run.
            as_of: The time up to which the store has all reports of the bus.
            workflow: Only runs of workflows with this name, in which `*` and `?` stand for any characters.
            is_proven: Publish ends also if this Airflow knows no run of the store at all.
        """
        self._rounds += 1
        runs = self._runs_in_turn(workflow)
        asking = Asking(self._collector, self._api, as_of=as_of, grace=self._grace, is_proven=is_proven)
        findings: list[Finding] = []
        problem = None
        try:
            self._api.begin_round()
            for answered in asking.answers(runs):
                # Those before an error count.
                findings.append(self._finding(answered, publisher))  # noqa: PERF401
        except RequestsUsedUpError:
            pass
        except EngineApiError as error:
            problem = str(error)
            # It may be this run about which Airflow cannot answer: the others come first in the next round.
            self._asked |= {stored.run: self._rounds for stored in runs[len(findings) :][:1]}
        self._note_outage(problem)
        left = len(runs) - len(findings)
        self._waiting = left + sum(each.outcome in _WAITING for each in findings)
        return Round(self._api.address, findings, left, problem, is_dry=publisher is None, workflow=workflow)

    def _note_outage(self, problem: str | None) -> None:
        """Count a failed round, and log the beginning and the end of an outage."""
        if problem is not None:
            self._failed_rounds += 1
            if self._warns and not self._is_out:
                logger.warning("the ends of runs are not compared with Airflow: %s; each round tries again", problem)
        elif self._is_out and self._warns:
            logger.info("Airflow at %s answers again", self._api.address)
        self._is_out = problem is not None

    def _runs_in_turn(self, workflow: str | None) -> list[StoredRun]:
        """Return the runs without an end: first those about which Airflow was not asked for longest, then by age."""
        with self._collector.questions() as questions:
            running = questions.runs(Choice(workflow=workflow, states=(State.RUNNING,)))
        runs = [each for each in reversed(running) if is_of_engine(each.run)]
        known = {each.run for each in runs}
        self._asked = {run: number for run, number in self._asked.items() if run in known}
        self._sent = {run: end for run, end in self._sent.items() if run in known}
        return sorted(runs, key=lambda each: self._asked.get(each.run, 0))

    def _finding(self, answered: Answered, publisher: Publisher | None) -> Finding:
        """Publish what follows for a run, and return what was found about it."""
        stored, judgement, problem = answered.stored, answered.judgement, answered.problem
        self._asked[stored.run] = self._rounds
        outcome, end = judgement.outcome, judgement.end
        if end is not None and publisher is not None:
            if self._sent.get(stored.run) == (end.succeeded, end.over):
                outcome = Outcome.SENT
            elif publish_end(publisher, stored.run, end, answered.failures, answered.reports):
                self._sent[stored.run] = (end.succeeded, end.over)
                self._ends += 1
            else:
                outcome, problem = Outcome.REFUSED, "its end could not be published; the log has the reason"
        return Finding(stored.run, outcome, stored.began_at, stored.last_sign_at, end, answered.failures, problem)

    def measurements(self) -> list[Measurement]:
        """Return the metrics of this process's rounds."""
        return [
            measured(declarations.RECONCILE_CONNECTED, float(not self._is_out)),
            measured(declarations.RECONCILE_FAILED, self._failed_rounds),
            measured(declarations.RECONCILE_ENDS, self._ends),
            measured(declarations.RECONCILE_WAITING, self._waiting),
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
