"""
The questions of one round to Airflow and to the store, and the judgement about each run.

Not here: what follows from the answers (judgement), and publishing (publishing).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from dkist_processing_core.airflow.run_end import UnreportedFailures, unreported_in
from dkist_processing_core.collect.answers import Choice, StoredRun
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.errors import EngineApiError, EngineUnreachableError
from dkist_processing_core.events import Event
from dkist_processing_core.identity import BY_HAND, LOCAL, Run
from dkist_processing_core.reconcile.airflow_api import AirflowApi
from dkist_processing_core.reconcile.http_client import RequestsUsedUpError
from dkist_processing_core.reconcile.judgement import Judgement, Outcome, judge_known, judge_unknown
from dkist_processing_core.runs import State

_OF_THIS_LIBRARY = (f"{LOCAL}__", f"{BY_HAND}__")
_WITNESSES = 5
_ENDED = (State.FINISHED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Answered:
    """A run with what follows for it."""

    stored: StoredRun
    judgement: Judgement
    reports: tuple[Event, ...] = ()
    """The reports on it in the store, if an end is to be published."""
    failures: UnreportedFailures = UnreportedFailures()  # noqa: RUF009 - it is frozen
    problem: str | None = None
    """Why Airflow gave no answer about it."""


class Asking:
    """The questions of one round."""

    def __init__(
        self, collector: Collector, api: AirflowApi, *, as_of: datetime, grace: timedelta, is_proven: bool
    ) -> None:
        """
        Store whom to ask.

        Args:
            collector: The store.
            api: Airflow.
            as_of: The time up to which the store has all reports of the bus.
            grace: How long a callback of Airflow has for its own report.
            is_proven: Whether this is known to be the Airflow of the store's runs, even if it knows none of them.
        """
        self._collector = collector
        self._api = api
        self._as_of = as_of
        self._grace = grace
        self._is_proven = is_proven
        self._dags: dict[str, bool] = {}

    def answers(self, runs: Iterable[StoredRun]) -> Iterator[Answered]:
        """
        Yield what follows for each run, those that Airflow does not know last.

        Raises:
            EngineUnreachableError: Airflow does not answer.
            RequestsUsedUpError: No request is left in this round.
        """
        active = self._api.active_runs()
        unknown = []
        for stored in runs:
            if key_of(stored.run) in active:
                self._is_proven = True
                yield Answered(stored, Judgement(Outcome.RUNNING))
                continue
            try:
                answered = self._known(stored)
            except (EngineUnreachableError, RequestsUsedUpError):
                raise
            except EngineApiError as error:
                yield Answered(stored, Judgement(Outcome.REFUSED), problem=str(error))
                continue
            if answered is None:
                unknown.append(stored)
            else:
                self._is_proven = True
                yield answered
        for stored in unknown:
            yield self._unknown(stored)

    def _known(self, stored: StoredRun) -> Answered | None:
        """Return what follows for a run that Airflow knows; None if it does not know it."""
        found = self._api.run(*key_of(stored.run))
        if found is None:
            return None
        if not found.has_ended:
            return Answered(stored, Judgement(Outcome.RUNNING))
        states = self._api.task_states(*key_of(stored.run))
        reports = self._reports(stored)
        return self._with_failures(
            stored, judge_known(reports, found, states, as_of=self._as_of, grace=self._grace), reports
        )

    def _unknown(self, stored: StoredRun) -> Answered:
        reports = self._reports(stored)
        try:
            # Otherwise the address may be that of another Airflow, which may have the same DAGs.
            if not self._knows_any():
                return Answered(stored, Judgement(Outcome.UNPROVEN))
            has_dag = self._has_dag(stored.run)
        except (EngineUnreachableError, RequestsUsedUpError):
            raise
        except EngineApiError as error:
            return Answered(stored, Judgement(Outcome.REFUSED), problem=str(error))
        return self._with_failures(
            stored, judge_unknown(reports, has_dag=has_dag, as_of=self._as_of, grace=self._grace), reports
        )

    def _has_dag(self, run: Run) -> bool:
        dag_id, _ = key_of(run)
        if dag_id not in self._dags:
            self._dags[dag_id] = self._api.has_dag(dag_id)
        return self._dags[dag_id]

    def _knows_any(self) -> bool:
        """Return True if Airflow knows at least one run of the store; if need be, ask about some that have ended."""
        if not self._is_proven:
            with self._collector.questions() as questions:
                ended = questions.runs(Choice(states=_ENDED), 10 * _WITNESSES)
            witnesses = [each.run for each in ended if is_of_engine(each.run)][:_WITNESSES]
            self._is_proven = any(self._api.run(*key_of(run)) is not None for run in witnesses)
        return self._is_proven

    def _reports(self, stored: StoredRun) -> tuple[Event, ...]:
        with self._collector.questions() as questions:
            return tuple(questions.reports(stored.number))

    def _with_failures(self, stored: StoredRun, judgement: Judgement, reports: tuple[Event, ...]) -> Answered:
        if judgement.end is None:
            return Answered(stored, judgement)
        failures = unreported_in(reports, stored.run, judgement.end.failed_tasks)
        return Answered(stored, judgement, reports, failures)


def is_of_engine(run: Run) -> bool:
    """Return True if an engine ran it, and not this library, on a host or by hand."""
    return not run.run_id.startswith(_OF_THIS_LIBRARY)


def key_of(run: Run) -> tuple[str, str]:
    """Return the DAG id and the run id by which Airflow knows a run."""
    return f"{run.workflow_name}_{run.workflow_version}", run.run_id
