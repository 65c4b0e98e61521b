"""
Airflow's REST API, version 2, as far as the ends of runs need it: runs, and the states of their tasks.

Airflow 3.0 to 3.3 are supported. Each answer is what Airflow knows, or one `EngineApiError`. Not here: tokens
(airflow_token), connections and their limits (http_client), and what follows from an answer (judgement).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from dkist_processing_core.errors import EngineApiError, EngineUnreachableError
from dkist_processing_core.reconcile.airflow_token import TokenSource
from dkist_processing_core.reconcile.http_client import Answer, HttpClient

_PAGE = 100
_ANY_DAG = "~"
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_ACTIVE = "state=queued&state=running"
NO_STATE = "no_status"
_T = TypeVar("_T")


class EngineRun(msgspec.Struct, frozen=True):
    """A run as Airflow knows it."""

    dag_id: str
    dag_run_id: str
    state: str
    start_date: datetime | None = None
    end_date: datetime | None = None
    answered_at: datetime | None = None
    """When Airflow answered, by its clock."""

    @property
    def has_ended(self) -> bool:
        """Whether Airflow regards it as over."""
        return self.state in ("success", "failed")

    @property
    def succeeded(self) -> bool:
        """Whether it has ended well for Airflow."""
        return self.state == "success"

    @property
    def began(self) -> datetime | None:
        """When it began, in UTC."""
        return _in_utc(self.start_date)

    def differs(self, other: "EngineRun | None") -> bool:
        """Return True if another answer about the run has another state or another start, or does not know it."""
        return other is None or (self.state, self.start_date) != (other.state, other.start_date)

    @property
    def over(self) -> datetime | None:
        """When it ended, in UTC."""
        return _in_utc(self.end_date)


class _Runs(msgspec.Struct):
    dag_runs: list[EngineRun]
    total_entries: int


class _Instance(msgspec.Struct):
    task_id: str
    map_index: int = -1
    state: str | None = None

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class _Instances(msgspec.Struct):
    task_instances: list[_Instance]
    total_entries: int


class _Detail(msgspec.Struct):
    detail: Any = None


class AirflowApi:
    """The REST API of one Airflow."""

    def __init__(self, client: HttpClient, tokens: TokenSource) -> None:
        """Store the connection and the source of tokens."""
        self._client = client
        self._tokens = tokens

    @property
    def address(self) -> str:
        """The address of the API server."""
        return self._client.address

    def begin_round(self) -> None:
        """Begin a round of requests: their number starts again, and a token that is refused may be renewed once."""
        self._client.begin_round()
        self._tokens.begin_round()

    def active_runs(self) -> set[tuple[str, str]]:
        """
        Return DAG id and run id of all runs that are queued or running.

        Raises:
            EngineApiError: Airflow does not answer.
        """
        pages = self._pages(f"/dags/{_ANY_DAG}/dagRuns?{_ACTIVE}", _Runs)
        return {(run.dag_id, run.dag_run_id) for page in pages for run in page.dag_runs}

    def run(self, dag_id: str, run_id: str) -> EngineRun | None:
        """
        Return a run; None if Airflow does not know it.

        Raises:
            EngineApiError: Airflow does not answer.
        """
        path = _path_of_run(dag_id, run_id)
        answer = self._get(path)
        if self._is_unknown(answer, path, run_id):
            return None
        return msgspec.structs.replace(self._decoded(answer, path, EngineRun), answered_at=answer.at)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """
        Return the states of all tasks of a run that Airflow knows, by name.

        Raises:
            EngineApiError: Airflow does not answer.
        """
        states: dict[str, str] = {}
        for page in self._pages(f"{_path_of_run(dag_id, run_id)}/taskInstances", _Instances):
            states |= {each.name: each.state or NO_STATE for each in page.task_instances}
        return states

    def _pages(self, path: str, of: type[_T]) -> Iterator[_T]:
        """Yield the pages of a list: Airflow may return fewer entries at once than are requested."""
        seen, total = 0, 1
        while seen < total:
            page: Any = self._decoded(
                self._get(at := f"{path}{'&' if '?' in path else '?'}limit={_PAGE}&offset={seen}"), at, of
            )
            yield page
            entries = page.dag_runs if isinstance(page, _Runs) else page.task_instances
            if not entries:
                return
            seen, total = seen + len(entries), page.total_entries

    def _get(self, path: str) -> Answer:
        answer = self._sent(path)
        # Airflow answers some tokens that are invalid, as after a change of its secret, with 403.
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN) and self._tokens.renew():
            answer = self._sent(path)
        if answer.status == _UNAUTHORIZED:
            msg = f"Airflow at {self.address} refuses {self._tokens.what} (401); {self._tokens.remedy}"
            raise EngineUnreachableError(msg)
        if answer.status == _FORBIDDEN:
            msg = (
                f"Airflow at {self.address} forbids GET {_shown(path)} (403); its user needs the right to read DAGs, "
                "runs and task instances"
            )
            raise EngineApiError(msg)
        return answer

    def _sent(self, path: str) -> Answer:
        return self._client.request("GET", f"/api/v2{path}", token=self._tokens.token())

    def _is_unknown(self, answer: Answer, path: str, name: str) -> bool:
        """
        Return True if Airflow itself answers that it does not know the object of this name.

        A proxy, another service, or an API of another version answers 404 as well.
        """
        if answer.status != _NOT_FOUND:
            return False
        try:
            detail = msgspec.json.decode(answer.body, type=_Detail).detail
        except msgspec.MsgspecError:
            detail = None
        if isinstance(detail, str) and name in detail:
            return True
        raise self._unexpected(answer, path)

    def _decoded(self, answer: Answer, path: str, of: type[_T]) -> _T:
        if answer.status != _OK:
            raise self._unexpected(answer, path)
        try:
            return msgspec.json.decode(answer.body, type=of)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._unexpected(answer, path) from None

    def _unexpected(self, answer: Answer, path: str) -> EngineApiError:
        # The body is not shown: it is of a server that may not be Airflow.
        return EngineApiError(
            f"{self.address} answered GET {_shown(path)} with {answer.summary}, expected JSON of the REST API of "
            f"Airflow 3; {answer.remedy}"
        )


def _path_of_run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _shown(path: str) -> str:
    return f"/api/v2{path.partition('?')[0]}"


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
