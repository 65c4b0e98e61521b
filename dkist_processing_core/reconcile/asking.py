"""
The questions of one round to Airflow and to the store, and the judgement about each run.

Not here: what follows from the answers (judgement), and publishing (publishing).
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dkist_processing_core.airflow.run_end import UnreportedFailures, unreported_in
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.errors import EngineApiError, EngineUnreachableError, ReportsUnreadableError
from dkist_processing_core.events import Event
from dkist_processing_core.identity import BY_HAND, LOCAL, Run
from dkist_processing_core.reconcile.airflow_api import AirflowApi, EngineRun
from dkist_processing_core.reconcile.http_client import RequestsUsedUpError
from dkist_processing_core.reconcile.judgement import (
    ANNOUNCED_WITHIN,
    Judgement,
    Outcome,
    judge_known,
    judge_unknown,
    origins_of,
)
from dkist_processing_core.runs import State

_OF_THIS_LIBRARY = (f"{LOCAL}__", f"{BY_HAND}__")
_Key = tuple[str, str]
# So many runs are asked about to find one that Airflow knows, of each kind.
_WITNESSES = 5
_MOST_ENDED = 1000
_ANY = ""
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
    """Why Airflow gave no answer about it, or why its reports cannot be read."""


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
        self._active: set[_Key] = set()
        self._found: dict[_Key, EngineRun | None] = {}
        self._witnesses: dict[str, frozenset[str] | None] = {}

    def answers(self, runs: Iterable[StoredRun]) -> Iterator[Answered]:
        """
        Yield what follows for each run.

        Raises:
            EngineUnreachableError: Airflow does not answer.
            RequestsUsedUpError: No request is left in this round.
        """
        self._active = self._api.active_runs()
        for stored in runs:
            try:
                yield self._answered(stored)
            except (EngineUnreachableError, RequestsUsedUpError):
                raise
            except (EngineApiError, ReportsUnreadableError) as error:
                yield Answered(stored, Judgement(Outcome.REFUSED), problem=str(error))

    def _answered(self, stored: StoredRun) -> Answered:
        key = key_of(stored.run)
        if key in self._active:
            return Answered(stored, Judgement(Outcome.RUNNING))
        found = self._find(key)
        if found is None:
            return self._unknown(stored)
        if not found.has_ended:
            return Answered(stored, Judgement(Outcome.RUNNING))
        states = self._api.task_states(*key)
        if found.differs(self._api.run(*key)):
            # It was cleared or deleted meanwhile: the states may be those of its next start.
            return Answered(stored, Judgement(Outcome.RUNNING))
        reports = self._reports(stored)
        judgement = judge_known(reports, found, states, as_of=self._as_of, grace=self._grace)
        return self._with_failures(stored, judgement, reports)

    def _find(self, key: _Key) -> EngineRun | None:
        if key not in self._found:
            self._found[key] = self._api.run(*key)
        return self._found[key]

    def _unknown(self, stored: StoredRun) -> Answered:
        """Return what follows for a run that Airflow does not know, which may be another Airflow's."""
        reports = self._reports(stored)
        judgement = judge_unknown(reports, as_of=self._as_of, grace=self._grace)
        if judgement.end is not None and not self._is_proven and not self._is_of_this_airflow(stored.run, reports):
            return Answered(stored, Judgement(Outcome.UNPROVEN))
        return self._with_failures(stored, judgement, reports)

    def _is_of_this_airflow(self, run: Run, reports: Iterable[Event]) -> bool:
        """Return True if Airflow knows another run of the store, of the same DAG if possible, of the same address."""
        dag_id, _ = key_of(run)
        if dag_id not in self._witnesses:
            same = self._witness(Choice(workflow=run.workflow_name, version=run.workflow_version))
            self._witnesses[dag_id] = self._any_witness() if same is None else same
        known = self._witnesses[dag_id]
        if known is None:
            return False
        origins = origins_of(reports)
        return not origins or not known or not origins.isdisjoint(known)

    def _any_witness(self) -> frozenset[str] | None:
        if _ANY not in self._witnesses:
            self._witnesses[_ANY] = self._witness(Choice())
        return self._witnesses[_ANY]

    def _witness(self, choice: Choice) -> frozenset[str] | None:
        """Return the addresses in the reports on a chosen run that Airflow knows; None if none of some is known."""
        with self._collector.questions() as questions:
            open_runs = questions.runs(replace(choice, states=(State.RUNNING,)))
            over = questions.runs(replace(choice, states=_ENDED), _MOST_ENDED)
        open_runs = [each for each in open_runs if is_of_engine(each.run)]
        # A run without a time of its end was lost to Airflow.
        over = [each for each in over if is_of_engine(each.run) and each.ended_at is not None]
        active = [each for each in open_runs if key_of(each.run) in self._active]
        for stored in [*active[:1], *over[:_WITNESSES], *open_runs[:_WITNESSES]]:
            if key_of(stored.run) in self._active or self._is_known(stored.run):
                # Another run may be readable.
                with suppress(ReportsUnreadableError):
                    return origins_of(self._reports(stored))
        return None

    def _is_known(self, run: Run) -> bool:
        try:
            return self._find(key_of(run)) is not None
        except (EngineUnreachableError, RequestsUsedUpError):
            raise
        except EngineApiError:
            # The user may not read its DAG, for example: another run may be known.
            return False

    def _reports(self, stored: StoredRun) -> tuple[Event, ...]:
        with self._collector.questions() as questions:
            return tuple(questions.reports(stored.number))

    def _with_failures(self, stored: StoredRun, judgement: Judgement, reports: tuple[Event, ...]) -> Answered:
        if judgement.end is None:
            return Answered(stored, judgement)
        failures = unreported_in(reports, stored.run, judgement.end.failed_tasks)
        if self._as_of - (judgement.end.over or stored.last_sign_at) > ANNOUNCED_WITHIN:
            # People do not wait for it any more.
            failures = replace(failures, unannounced=())
        return Answered(stored, judgement, reports, failures)


def is_of_engine(run: Run) -> bool:
    """Return True if an engine ran it, and not this library, on a host or by hand."""
    return not run.run_id.startswith(_OF_THIS_LIBRARY)


def key_of(run: Run) -> _Key:
    """Return the DAG id and the run id by which Airflow knows a run."""
    return f"{run.workflow_name}_{run.workflow_version}", run.run_id
