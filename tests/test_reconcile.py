"""
The ends of runs that no callback reported: what Airflow's REST API answers, and what is published for it.

The answers are those of a fake server on a real socket; a real Airflow is in tests/airflow/test_reconcile.py.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from sqlalchemy import update
from typer.testing import CliRunner

from dkist_processing_core.airflow.run_end import RunEnd, UnreportedFailures
from dkist_processing_core.cli import app
from dkist_processing_core.cli.draw.findings import draw_findings, summary
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.tables import LISTENING, PACKS
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.events import (
    Event,
    Graph,
    Reporter,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskSampled,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.identity import Run
from dkist_processing_core.journal import Journal
from dkist_processing_core.reconcile.airflow_api import EngineRun
from dkist_processing_core.reconcile.judgement import GRACE, Outcome, judge_known, judge_unknown
from dkist_processing_core.reconcile.reconciler import Reconciler
from dkist_processing_core.reconcile.rounds import Finding, Round
from dkist_processing_core.runs import RunState, State
from dkist_processing_core.settings.reading import read_settings
from tests.facts import make
from tests.services.airflow_rest import PASSWORD, USER, FakeAirflow, fake_airflow
from tests.services.sockets import BlackHole, closed_port

DAG, RUN = "W_1", "manual__1"
NOW = BEGAN = OVER = datetime(2026, 1, 1, tzinfo=UTC)  # each test has its own times: see below


@pytest.fixture(autouse=True)
def _times(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Set the times to some before the start of the test: the suite may have been running for longer.
    """
    now = datetime.now(UTC).replace(microsecond=123456)
    for name, minutes in (("NOW", 0), ("BEGAN", 30), ("OVER", 10)):
        monkeypatch.setattr(f"{__name__}.{name}", now - timedelta(minutes=minutes))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    """
    A fake Airflow that the settings name.
    """
    with fake_airflow() as fake:
        monkeypatch.setenv("DKIST_CORE_AIRFLOW_URL", fake.url)
        monkeypatch.setenv("DKIST_CORE_AIRFLOW_USERNAME", USER)
        monkeypatch.setenv("DKIST_CORE_AIRFLOW_PASSWORD", PASSWORD)
        yield fake


def of(event_class: type[Event], task: str | None, minutes_ago: float, run_id: str = RUN, **facts: Any) -> Event:
    """
    Return an event about a run.
    """
    facts = {"reported_by": "launcher", "time": NOW - timedelta(minutes=minutes_ago), "run_id": run_id} | facts
    return make(event_class, task, **facts)


def begun(run_id: str = RUN, began: datetime | None = None) -> list[Event]:
    """
    Return the reports on a run whose first task has finished and whose second one runs.
    """
    graph = Graph(nodes=("A", "B", "C"), edges=(("A", "B"), ("B", "C")))
    return [
        of(WorkflowStarted, None, 30, run_id, reported_by="engine", started_at=began or BEGAN, graph=graph),
        of(TaskDispatched, "A", 29, run_id),
        of(TaskStarted, "A", 29, run_id),
        of(TaskFinished, "A", 25, run_id, reported_by="task"),
        of(TaskDispatched, "B", 24, run_id),
        of(TaskStarted, "B", 24, run_id, sample_seconds=30.0),
    ]


def publish(*events: Event) -> None:
    """
    Publish events on the embedded bus.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*events)


def published() -> list[Event]:
    """
    Return all reports on the bus.
    """
    return list(replayed(read_settings(), every_report=True))


def take_in(collector: Collector) -> None:
    """
    Take in what is on the bus, without the second in which the collector waits for more.
    """
    with collector._database.transaction() as transaction:
        for event in published():
            collector._store.add(transaction, event)
        while collector._store.fold(transaction, 100):
            pass


def announced() -> list[str]:
    """
    Return the tasks of the failure messages in the journal of the embedded bus.
    """
    bus = Publisher.open(read_settings()).bus
    entries = Journal.look(bus.journal_path, lambda journal: journal.pending(0, 1000))
    bodies = [json.loads(entry.message.body) for entry in entries if entry.message.exchange == bus.failure_exchange]
    return [body["taskName"] for body in bodies]


@contextmanager
def reconciler(**options: Any) -> Iterator[tuple[Collector, Reconciler]]:
    """
    Open the store of the settings, and reconcile it.
    """
    with Collector(read_settings()) as collector:
        opened = Reconciler(collector, **options)
        try:
            yield collector, opened
        finally:
            opened.close()


def reconcile(minutes: float = 5, *, as_of: datetime | None = None, **options: Any) -> Round:
    """
    Run one round with a store that has everything until a time, or until some minutes after it has taken in the bus.
    """
    with reconciler() as (collector, opened), Publisher.open(read_settings()) as publisher:
        take_in(collector)
        as_of = as_of or datetime.now(UTC) + timedelta(minutes=minutes)
        return opened.reconcile(publisher, as_of=as_of, **options)


def know_another(airflow: FakeAirflow, workflow: str = "V", **facts: Any) -> None:
    """
    Publish the end of another run, which Airflow knows: it is the Airflow of the store.
    """
    of_other = {"workflow_name": workflow, "run_id": "other"} | facts
    publish(make(WorkflowFinished, time=NOW, reported_by="engine", ended_at=NOW, **of_other))
    airflow.add(f"{workflow}_1", "other", "success", began=BEGAN, over=NOW)


def outcomes(found: Round) -> dict[str, Outcome]:
    """
    Return the outcome for each run id.
    """
    return {each.run.run_id: each.outcome for each in found.findings}


def test_a_failed_run_without_an_end_gets_the_one_of_its_callback(airflow: FakeAirflow) -> None:
    """
    The end has Airflow's time, from which its id is derived, and the states of all tasks; the failure is announced.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "failed", began=BEGAN, over=OVER, A="success", B="failed", C=None)
    before = len(published())

    found = reconcile()

    *failures, end = published()[before:]
    assert outcomes(found) == {RUN: Outcome.ENDED}
    expected = make(WorkflowFailed, run_id=RUN, time=NOW, reported_by="engine", ended_at=OVER)
    assert isinstance(end, WorkflowFailed)
    assert (end.id, end.reported_by, end.duration_seconds) == (expected.id, Reporter.ENGINE, 1200.0)
    assert end.tasks == {"A": "success", "B": "failed", "C": "no_status"}
    facts = [
        (each.task_name, each.attempt, each.cause, each.provisional, each.final)
        for each in failures
        if isinstance(each, TaskFailed)
    ]
    assert facts == [("B", None, "lost", True, True), ("B", 1, "lost", True, True)]
    assert announced() == ["B"]
    (view,) = RunState(published()).runs
    assert (view.state, view.ended_at) == (State.FAILED, OVER)
    assert [task.state for task in view.tasks] == [State.FINISHED, State.FAILED, State.NOT_RUN]


def test_a_second_round_publishes_nothing(airflow: FakeAirflow) -> None:
    """
    Neither after the store has the end, nor in the same process before that.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER, A="success", B="success")
    with reconciler() as (collector, opened), Publisher.open(read_settings()) as publisher:
        take_in(collector)
        first, second = (opened.reconcile(publisher, as_of=NOW) for _ in range(2))
    events = published()

    third = reconcile()

    assert [outcomes(found) for found in (first, second, third)] == [{RUN: Outcome.ENDED}, {RUN: Outcome.SENT}, {}]
    assert published() == events
    assert [each.name for each in events if isinstance(each, WorkflowFinished)] == ["workflow.finished"]


def test_a_run_that_goes_on_gets_no_end(airflow: FakeAirflow) -> None:
    """
    Neither one that Airflow lists, nor one that began to run again between the list and the question.
    """
    publish(*begun(), *begun("manual__2"))
    airflow.add(DAG, RUN, "running", began=BEGAN, B="running")
    airflow.add(DAG, "manual__2", "restarting", B="running")
    events = published()

    found = reconcile()

    assert outcomes(found) == {RUN: Outcome.RUNNING, "manual__2": Outcome.RUNNING}
    assert published() == events


def test_an_end_within_the_grace_is_left_to_the_callback(airflow: FakeAirflow) -> None:
    """
    For 60 s by the time up to which the store has all events.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "success", began=BEGAN, over=NOW - timedelta(seconds=59))
    airflow.clock_ahead = timedelta(minutes=1)

    early, due = reconcile(as_of=NOW), reconcile(as_of=NOW + timedelta(seconds=1))

    assert (outcomes(early), outcomes(due)) == ({RUN: Outcome.RECENT}, {RUN: Outcome.ENDED})


@pytest.mark.parametrize("ahead", [-5, 5])
def test_the_grace_holds_by_both_clocks(airflow: FakeAirflow, ahead: float) -> None:
    """
    Airflow's clock, by which it states the end, may differ from that of the store.
    """
    publish(*begun())
    airflow.clock_ahead = timedelta(minutes=ahead)
    by_airflow = datetime.now(UTC) + airflow.clock_ahead
    airflow.add(DAG, RUN, "success", began=BEGAN - timedelta(hours=1), over=by_airflow - timedelta(seconds=30))

    assert outcomes(reconcile(as_of=datetime.now(UTC))) == {RUN: Outcome.RECENT}


def test_a_run_that_is_cleared_while_airflow_is_asked_gets_no_end(airflow: FakeAirflow) -> None:
    """
    The states of its tasks may be those of its next start.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "failed", began=BEGAN, over=OVER, A="success", B="failed")

    def clear(_: str, path: str) -> None:
        if path.endswith("taskInstances"):
            airflow.add(DAG, RUN, "queued", A="success", B=None)

    airflow.misbehaves = clear

    assert outcomes(reconcile()) == {RUN: Outcome.RUNNING}


@pytest.mark.parametrize(
    "seconds",
    [0, 2, None],
    ids=["the same time", "another time", "a callback that knows no times"],
)
def test_no_second_end_is_published_for_a_start(airflow: FakeAirflow, seconds: int | None) -> None:
    """
    Reports of an attempt that seems to be later, as by a clock that is ahead, do not change that.
    """
    known: dict[str, Any] = (
        {} if seconds is None else {"ended_at": OVER + timedelta(seconds=seconds), "duration_seconds": 1200.0 + seconds}
    )
    facts: dict[str, Any] = {"ended_at": None, "duration_seconds": None, "time": OVER} | known
    end = of(WorkflowFinished, None, 10, reported_by="engine", tasks={"A": "success"}, **facts)
    publish(*begun(), end, of(TaskDispatched, "C", 1), of(TaskDispatched, "C", 0.5, attempt=2, max_attempts=2))
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER, A="success", B="success", C="success")
    events = published()

    found = reconcile()

    assert outcomes(found) == {RUN: Outcome.REPORTED}
    assert published() == events


def test_a_cleared_run_gets_the_end_of_its_new_start(airflow: FakeAirflow) -> None:
    """
    The bus has an end, but of an earlier start.
    """
    earlier = BEGAN - timedelta(hours=1)
    end = make(
        WorkflowFinished,
        time=earlier + timedelta(minutes=5),
        run_id=RUN,
        reported_by="engine",
        ended_at=earlier + timedelta(minutes=5),
        duration_seconds=300.0,
    )
    publish(*begun(began=earlier), end, *begun())
    airflow.add(DAG, RUN, "failed", began=BEGAN, over=OVER, A="success", B="failed")

    found = reconcile()

    assert outcomes(found) == {RUN: Outcome.ENDED}
    ends = [each for each in published() if isinstance(each, WorkflowFailed | WorkflowFinished)]
    assert [each.ended_at for each in ends] == [earlier + timedelta(minutes=5), OVER]


def test_a_deleted_run_ends_as_failed_with_that_reason(airflow: FakeAirflow) -> None:
    """
    Another run shows that this is the Airflow that ran it; its open task has failed, and is announced.
    """
    publish(*begun())
    know_another(airflow)

    found = reconcile()

    view = RunState(published()).run(RUN)
    assert outcomes(found) == {RUN: Outcome.ENDED}
    assert view is not None
    assert (view.state, view.ended_at) == (State.FAILED, None)
    assert view.reason == (
        "lost: Airflow does not know this run, deleted, or lost when an older backup of Airflow's database was restored"
    )
    assert [task.state for task in view.tasks] == [State.FINISHED, State.FAILED, State.NOT_RUN]
    assert announced() == ["B"]
    assert reconcile().findings == []


def test_a_run_that_airflow_does_not_know_and_that_still_reports_gets_no_end(airflow: FakeAirflow) -> None:
    """
    Its samples show that it lives, as long as not three of them are missing.
    """
    publish(*begun(), of(TaskSampled, "B", 1, sequence=5, interval_seconds=300.0))
    know_another(airflow)

    alive, silent = reconcile(minutes=14), reconcile(minutes=17)

    assert (outcomes(alive), outcomes(silent)) == ({RUN: Outcome.ALIVE}, {RUN: Outcome.ENDED})


def test_old_reports_in_a_new_store_are_old(airflow: FakeAirflow) -> None:
    """
    The store has received them a moment ago; their own times count, less what a clock may be behind.
    """
    silent, recent = begun(), [*begun("manual__2"), of(TaskFinished, "B", 5, "manual__2")]
    publish(*silent, *recent)
    know_another(airflow)

    found = reconcile(as_of=NOW)

    assert outcomes(found) == {RUN: Outcome.ENDED, "manual__2": Outcome.ALIVE}


def received(event: Event, minutes_ago: float) -> Event:
    """
    Return a report as the store returns it.
    """
    return event.with_acknowledgement(lambda: None, NOW - timedelta(minutes=minutes_ago))


def minutes_since(event: Event) -> float:
    """
    Return how long ago a report was made.
    """
    return (NOW - event.time).total_seconds() / 60


def test_the_clock_of_a_host_does_not_matter_for_what_was_received_when_it_was_published() -> None:
    """
    It is 20 minutes behind, and the run reports; it is 20 minutes ahead, and the run is silent.
    """
    for differs, silent, outcome in ((20, 0, Outcome.ALIVE), (-20, 0, Outcome.ALIVE), (-20, 2, Outcome.ENDED)):
        events = [*begun(), of(TaskSampled, "B", silent, sequence=40, interval_seconds=30.0)]
        reports = [
            received(msgspec.structs.replace(each, time=each.time - timedelta(minutes=differs)), minutes_since(each))
            for each in events
        ]

        judgement = judge_unknown(reports, as_of=NOW, grace=GRACE)

        assert judgement.outcome is outcome


@pytest.mark.parametrize(("minutes", "outcome"), [(14, Outcome.ALIVE), (15, Outcome.ENDED)])
@pytest.mark.parametrize("of_attempt", [[], [(TaskStarted, "C")]], ids=["in a queue", "an attempt without samples"])
def test_without_samples_a_run_may_be_silent_for_longer(
    minutes: int, outcome: Outcome, of_attempt: list[tuple[type[Event], str]]
) -> None:
    """
    Its task may wait in a queue, or its environment is built; an alarm of a watcher is no sign of life.
    """
    events = [*begun(), of(TaskFinished, "B", minutes), *(of(kind, task, minutes) for kind, task in of_attempt)]
    alarm = of(WorkflowOverdue, None, 1, reported_by="watcher", sequence=2, limit_seconds=3600.0)
    reports = [received(each, minutes_since(each)) for each in (*events, alarm)]

    assert judge_unknown(reports, as_of=NOW, grace=GRACE).outcome is outcome


def test_an_airflow_that_may_be_the_wrong_one_ends_nothing(airflow: FakeAirflow) -> None:
    """
    It knows no run of the store, although it has the DAG; a run that it knows makes it the right one.
    """
    publish(*begun())
    airflow.add(DAG, "of-staging", "success")
    wrong = reconcile()
    know_another(airflow)

    right = reconcile()

    assert (outcomes(wrong), outcomes(right)) == ({RUN: Outcome.UNPROVEN}, {RUN: Outcome.ENDED})
    assert not wrong.is_complete


@pytest.mark.parametrize(
    ("address", "outcome"), [("https://staging.example", Outcome.UNPROVEN), ("https://a.example", Outcome.ENDED)]
)
def test_a_run_of_another_airflow_on_the_bus_gets_no_end(airflow: FakeAirflow, address: str, outcome: Outcome) -> None:
    """
    Its log has another address than that of a run that this Airflow knows.
    """

    def failed(run_id: str, log_url: str, workflow: str = "W") -> Event:
        facts = {"cause": "lost", "log_url": log_url, "workflow_name": workflow, "reported_by": "engine"}
        return of(TaskFailed, "B", 20, run_id, provisional=True, **facts)

    publish(*begun(), failed(RUN, f"{address}/dags/W_1/runs/1"), failed("other", "https://a.example/dags/W_1/runs/2"))
    know_another(airflow, "W")

    assert outcomes(reconcile(minutes=20)) == {RUN: outcome}


def test_all_runs_may_be_gone_on_request(airflow: FakeAirflow) -> None:
    """
    As after the loss of Airflow's database.
    """
    publish(*begun())
    assert airflow.runs == {}

    assert outcomes(reconcile(is_proven=True)) == {RUN: Outcome.ENDED}


def test_only_failures_of_the_last_days_are_announced(airflow: FakeAirflow) -> None:
    """
    People do not wait for those of a run that ended months ago, of which a new store has still received the reports.
    """
    publish(*begun(), *begun("manual__2"))
    for run_id, days in ((RUN, 8), ("manual__2", 6)):
        airflow.add(
            DAG, run_id, "failed", began=BEGAN - timedelta(days=days), over=OVER - timedelta(days=days), B="failed"
        )

    found = reconcile()

    assert {each.run.run_id: each.failures.unannounced for each in found.findings} == {
        RUN: (),
        "manual__2": (("B", 1),),
    }
    assert [each.failures.without_end for each in found.findings] == [("B",)] * 2
    assert announced() == ["B"]


def test_a_run_of_another_publisher_gets_no_end(airflow: FakeAirflow) -> None:
    """
    No engine of this library has reported it, and Airflow knows nothing about it; that is no problem to solve.
    """
    publish(of(TaskStarted, "A", 29, "a-run-of-another-engine"))
    know_another(airflow)

    found = reconcile(minutes=20)

    assert outcomes(found) == {"a-run-of-another-engine": Outcome.FOREIGN}
    assert found.is_complete


def test_runs_without_airflow_are_not_asked_about(airflow: FakeAirflow) -> None:
    """
    A local run, and one by hand, have other ways to end.
    """
    publish(*begun("local__1__20261122T090000Z__0a1b2c3d"), *begun("hand__1__20261122T090000Z__0a1b2c3d"))

    assert reconcile().findings == []
    assert [each for each in airflow.asked if RUN in each] == []


def test_long_lists_come_in_pages(airflow: FakeAirflow) -> None:
    """
    Airflow returns fewer entries than are requested.
    """
    tasks = {f"T{number:02}": "success" for number in range(23)}
    publish(*begun(), *(event for number in range(2, 9) for event in begun(f"manual__{number}")))
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER, **tasks)
    for number in range(2, 9):
        airflow.add(DAG, f"manual__{number}", "running", began=BEGAN)
    airflow.page = 3

    found = reconcile()

    (ended,) = (each for each in found.findings if each.outcome is Outcome.ENDED)
    assert ended.end is not None
    assert ended.end.states == tasks
    assert found.count(Outcome.RUNNING) == 7
    assert sum("/dags/~/dagRuns" in each for each in airflow.asked) == 3


def test_a_name_with_any_characters_is_asked_for_as_it_is(airflow: FakeAirflow) -> None:
    """
    Other publishers may use names that Airflow's exporter refuses.
    """
    name, run_id = "sun & moon #1?", "scheduled__2026-11-22T09:00:00+00:00"
    events = [make(type(each), **{**_fields(each), "workflow_name": name, "run_id": run_id}) for each in begun(run_id)]
    publish(*events)
    airflow.add(f"{name}_1", run_id, "success", began=BEGAN, over=OVER, A="success", B="success")

    assert outcomes(reconcile()) == {run_id: Outcome.ENDED}
    assert any("/dags/sun%20%26%20moon%20%231%3F_1/dagRuns/scheduled__" in each for each in airflow.asked)


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_a_token_that_has_expired_is_renewed(airflow: FakeAirflow) -> None:
    """
    Within the round, by the same login.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "running", began=BEGAN)
    with reconciler() as (collector, opened):
        take_in(collector)
        opened.reconcile(None, as_of=NOW)
        airflow.tokens.clear()

        found = opened.reconcile(None, as_of=NOW)

    assert (found.problem, outcomes(found)) == (None, {RUN: Outcome.RUNNING})
    assert [each for each in airflow.asked if "/auth" in each] == ["POST /auth/token"] * 2


def test_a_token_file_is_read_again(airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A process that runs for months gets the token that an operator has renewed.
    """
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_USERNAME")
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_PASSWORD")
    monkeypatch.setenv("DKIST_CORE_AIRFLOW_TOKEN_FILE", str(file))
    airflow.tokens.add("second")
    with reconciler() as (_, opened):
        refused = opened.reconcile(None, as_of=NOW)
        file.write_text("second\n")

        accepted = opened.reconcile(None, as_of=NOW)

    assert refused.problem == (
        f"Airflow at {airflow.url} refuses the token in the file of DKIST_CORE_AIRFLOW_TOKEN_FILE (401); replace it by "
        "a valid one"
    )
    assert accepted.problem is None


def test_no_login_is_needed_where_all_are_admins(airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As on one's own host; elsewhere the message names the settings.
    """
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_USERNAME")
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_PASSWORD")

    refused = reconcile()
    airflow.admits_all = True

    assert refused.problem == (
        f"Airflow at {airflow.url} gives a request without a login no token (403); set DKIST_CORE_AIRFLOW_USERNAME and "
        "DKIST_CORE_AIRFLOW_PASSWORD, or DKIST_CORE_AIRFLOW_TOKEN_FILE"
    )
    assert reconcile().problem is None


_HTML = b"<html><body>secret page</body></html>"
_CHECK = "correct DKIST_CORE_AIRFLOW_URL, which is the address without /api/v2"
_STARTING = "it may be starting; see its log if this continues"
_EXPECTED = "expected JSON of the REST API of Airflow 3"
_LIST = "GET /api/v2/dags/~/dagRuns"


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, _HTML, f"{{url}} answered {_LIST} with 200 (text/html), {_EXPECTED}; {_CHECK}"),
        (200, {"dag_runs": 3}, f"{{url}} answered {_LIST} with 200 (application/json), {_EXPECTED}; {_CHECK}"),
        (404, _HTML, f"{{url}} answered {_LIST} with 404 (text/html), {_EXPECTED}; {_CHECK}"),
        (302, b"", f"{{url}} answered {_LIST} with 302 to /login (text/html), {_EXPECTED}; {_CHECK}"),
        (
            503,
            _HTML,
            f"Airflow at {{url}} does not answer: found 503 (text/html); {_STARTING}",
        ),
        (
            500,
            {"detail": "secret"},
            f"{{url}} answered {_LIST} with 500 (application/json), {_EXPECTED}; {_STARTING}",
        ),
        (
            403,
            {"detail": "Forbidden"},
            f"Airflow at {{url}} forbids {_LIST} (403); its user needs the right to read DAGs, runs and task instances",
        ),
        (401, {"detail": "no"}, "Airflow at {url} refuses the token that it gave (401); see its log"),
    ],
    ids=["page", "other JSON", "other server", "redirect", "starting", "broken", "forbidden", "refused"],
)
def test_an_answer_of_another_kind_is_one_clear_problem(
    airflow: FakeAirflow, status: int, body: Any, problem: str
) -> None:
    """
    Nothing is published, and nothing of the page is shown.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER)
    airflow.misbehaves = lambda _, path: (status, body) if path.startswith("/api") else None
    events = published()

    found = reconcile()

    assert found.problem == problem.format(url=airflow.url)
    assert (found.left, found.is_complete, found.findings) == (1, False, [])
    assert published() == events


def test_a_wrong_password_is_a_clear_problem(airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It names the settings, and not the password.
    """
    monkeypatch.setenv("DKIST_CORE_AIRFLOW_PASSWORD", "battery staple")

    assert reconcile().problem == (
        f"Airflow at {airflow.url} gives the user of DKIST_CORE_AIRFLOW_USERNAME no token (401); correct "
        "DKIST_CORE_AIRFLOW_USERNAME and DKIST_CORE_AIRFLOW_PASSWORD"
    )


def test_a_closed_port_is_a_clear_problem(airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As while Airflow is restarted.
    """
    assert airflow.port
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("DKIST_CORE_AIRFLOW_URL", url)

        problem = reconcile().problem

    assert problem == f"Airflow at {url} does not answer: connection refused"


def test_one_run_without_an_answer_does_not_hold_up_the_others(airflow: FakeAirflow) -> None:
    """
    For example since the user may not read its DAG, or an answer is broken.
    """
    publish(*begun(), *begun("manual__2"))
    for run_id in (RUN, "manual__2"):
        airflow.add(DAG, run_id, "success", began=BEGAN, over=OVER, A="success", B="success")
    airflow.misbehaves = lambda _, path: (403, {"detail": "Forbidden"}) if path.endswith(RUN) else None

    found = reconcile()

    assert outcomes(found) == {RUN: Outcome.REFUSED, "manual__2": Outcome.ENDED}
    assert "forbids GET /api/v2/dags/W_1/dagRuns/manual__1 (403)" in str(found.findings[0].problem)
    assert not found.is_complete


def test_a_run_whose_reports_cannot_be_read_does_not_hold_up_the_others(airflow: FakeAirflow) -> None:
    """
    A newer release has packed them, or they are damaged. It is also no run by which Airflow is known.
    """
    publish(*begun(), *begun("manual__2"))
    for run_id in (RUN, "manual__2"):
        airflow.add(DAG, run_id, "success", began=BEGAN, over=OVER, A="success", B="success")

    with reconciler() as (collector, opened), Publisher.open(read_settings()) as publisher:
        take_in(collector)
        with collector._database.transaction() as transaction:
            transaction.execute(update(PACKS).where(PACKS.c.run == 1).values(body=b"\xff"))
        found = opened.reconcile(publisher, as_of=datetime.now(UTC) + timedelta(minutes=5))

    assert outcomes(found) == {RUN: Outcome.REFUSED, "manual__2": Outcome.ENDED}
    assert [each.problem for each in found.findings if each.problem and "dictionary 255" in each.problem]


def test_a_404_of_another_server_is_not_a_deleted_run(airflow: FakeAirflow) -> None:
    """
    Only Airflow's own answer names the run.
    """
    publish(*begun())
    know_another(airflow)
    airflow.misbehaves = lambda _, path: (404, {"detail": "Not Found"}) if path.endswith(RUN) else None

    assert outcomes(reconcile()) == {RUN: Outcome.REFUSED}


def test_the_number_of_requests_in_a_round_is_limited(airflow: FakeAirflow) -> None:
    """
    The next rounds continue with the runs about which Airflow was not asked, so that each has its turn.
    """
    publish(*(event for number in range(6) for event in begun(f"manual__{number}")))
    for number in range(6):
        airflow.add(DAG, f"manual__{number}", "success", began=BEGAN, over=NOW, A="success")
    with reconciler(most_requests=7) as (collector, opened):
        take_in(collector)

        rounds = [opened.reconcile(None, as_of=NOW) for _ in range(4)]

    assert [found.problem for found in rounds] == [None] * 4
    assert all(0 < found.left < 6 for found in rounds)
    assert {run_id for found in rounds for run_id in outcomes(found)} == {f"manual__{number}" for number in range(6)}
    assert len(airflow.asked) <= 28


@pytest.mark.parametrize("is_away", [False, True], ids=["a limit on the requests", "an outage"])
def test_a_round_that_ends_early_has_ended_deleted_runs(airflow: FakeAirflow, *, is_away: bool) -> None:
    """
    Those about which Airflow was asked, and the next rounds continue with the others.
    """
    ids = [f"manual__{number}" for number in range(15)]
    publish(*(event for run_id in ids for event in begun(run_id)))
    know_another(airflow)
    airflow.misbehaves = lambda _, path: (503, b"") if is_away and path.endswith(ids[9]) else None
    with reconciler(most_requests=100 if is_away else 10) as (collector, opened):
        take_in(collector)

        rounds = [outcomes(opened.reconcile(None, as_of=NOW)) for _ in range(4)]

    ended = {run_id for found in rounds for run_id, outcome in found.items() if outcome is Outcome.ENDED}
    assert all(0 < len(found) < len(ids) for found in rounds)
    assert ended == set(ids) - ({ids[9]} if is_away else set())


def test_an_outage_is_one_warning_and_a_metric(airflow: FakeAirflow, caplog: pytest.LogCaptureFixture) -> None:
    """
    Its end is logged too, and nothing holds a secret.
    """
    airflow.misbehaves = lambda *_: (503, b"")
    values = []
    with reconciler() as (_, opened), caplog.at_level(logging.INFO):
        for _ in range(3):
            opened.reconcile(None, as_of=NOW)
        values.append({each.metric.name: each.values[0] for each in opened.measurements()})
        airflow.misbehaves = lambda *_: None
        opened.reconcile(None, as_of=NOW)
        values.append({each.metric.name: each.values[0] for each in opened.measurements()})

    ours = [each for each in caplog.records if "reconcile" in each.name]
    assert [each.levelname for each in ours] == ["WARNING", "INFO"]
    assert PASSWORD not in caplog.text
    assert "secret-token" not in caplog.text
    numbers = [
        [getattr(each[f"dkist.core.reconcile.{name}"], "value", None) for name in ("connected", "failed")]
        for each in values
    ]
    assert numbers == [[0.0, 3.0], [1.0, 3.0]]


def test_a_run_that_goes_on_waits_for_nothing(airflow: FakeAirflow) -> None:
    """
    An alert can then be about the metric: such a run may be as it should be for days.
    """
    publish(*begun(), *begun("manual__2"))
    airflow.add(DAG, RUN, "running", began=BEGAN)
    airflow.add(DAG, "manual__2", "success", began=BEGAN, over=NOW)
    with reconciler() as (collector, opened):
        take_in(collector)
        opened.reconcile(None, as_of=NOW)
        values = {each.metric.name: each.values[0] for each in opened.measurements()}

    assert getattr(values["dkist.core.reconcile.waiting"], "value", None) == 1


def test_a_silent_server_ends_the_round_in_time(monkeypatch: pytest.MonkeyPatch, black_hole: BlackHole) -> None:
    """
    It accepts the connection, and answers nothing.
    """
    monkeypatch.setenv("DKIST_CORE_AIRFLOW_URL", f"http://127.0.0.1:{black_hole.port}")
    monkeypatch.setattr("dkist_processing_core.reconcile.http_client._READ_SECONDS", 0.2)

    assert str(reconcile().problem).endswith("does not answer: no answer in time")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"URL": ""}, "DKIST_CORE_AIRFLOW_URL: found nothing, expected the URL"),
        ({"URL": "airflow.example"}, "DKIST_CORE_AIRFLOW_URL: found 'airflow.example', expected an http or https URL"),
        ({"URL": "https://a:secret-pw@airflow.example"}, "found a value that is not shown, expected an http or https"),
        ({"PASSWORD": ""}, "DKIST_CORE_AIRFLOW_PASSWORD: found nothing, expected it together with"),
        ({"USERNAME": ""}, "DKIST_CORE_AIRFLOW_USERNAME: found nothing, expected it together with"),
        ({"TOKEN_FILE": "/token"}, "DKIST_CORE_AIRFLOW_TOKEN_FILE: found beside DKIST_CORE_AIRFLOW_USERNAME"),
    ],
)
def test_unusable_settings_are_one_clear_error(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """
    It names the variable, and shows no secret.
    """
    for name, value in variables.items():
        monkeypatch.setenv(f"DKIST_CORE_AIRFLOW_{name}", value)

    with pytest.raises(ConfigurationError, match=message) as raised:
        reconcile()

    assert "secret-pw" not in str(raised.value)
    assert airflow.asked == []


@pytest.mark.parametrize(
    ("content", "problem"), [(None, r"No such file"), ("", "a file without a token"), ("a b", "a file without a token")]
)
def test_an_unusable_token_file_is_a_clear_problem(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, problem: str
) -> None:
    """
    It is found when the file is read, for each round.
    """
    assert airflow.port
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_USERNAME")
    monkeypatch.delenv("DKIST_CORE_AIRFLOW_PASSWORD")
    monkeypatch.setenv("DKIST_CORE_AIRFLOW_TOKEN_FILE", str(tmp_path / "token"))
    if content is not None:
        (tmp_path / "token").write_text(content)

    assert problem in str(reconcile().problem)


moments = st.floats(1.0, 3600.0)


@given(st.lists(st.tuples(moments, moments, st.booleans(), st.floats(-5.0, 5.0)), min_size=1, max_size=5))
def test_an_end_is_published_if_and_only_if_the_bus_has_none_of_that_start(
    starts: list[tuple[float, float, bool, float]],
) -> None:
    """
    Whatever ends of other starts it has, and although a callback may state another time of the end than the REST API.
    """
    events, at = begun(), NOW - timedelta(days=2)
    for pause, lasts, is_reported, differs in starts:
        began = at + timedelta(seconds=pause)
        at = began + timedelta(seconds=lasts)
        if is_reported:
            stated = max(began, at + timedelta(seconds=differs))
            seconds = (stated - began).total_seconds()
            events.append(
                of(WorkflowFinished, None, 0, reported_by="engine", ended_at=stated, duration_seconds=seconds)
            )
    found = EngineRun(DAG, RUN, "success", began, at)

    judgement = judge_known(events, found, {}, as_of=NOW, grace=GRACE)

    assert judgement.outcome is (Outcome.REPORTED if starts[-1][2] else Outcome.ENDED)


def rounds() -> Round:
    """
    Return a round with a finding of every kind.
    """
    end = RunEnd(succeeded=False, began=BEGAN, over=OVER, states={"B": "failed"}, reason="lost: " + "why " * 40)
    findings = [
        Finding(
            Run("l0_to_l1_" + "instrument" * 4, "1.2.3", f"manual__2026-11-22T09:00:0{at}+00:00", at),
            outcome,
            BEGAN,
            OVER,
            end if outcome is Outcome.ENDED else None,
            UnreportedFailures(("B",), (("B", 1),)),
            "https://airflow.example answered something else" if outcome is Outcome.REFUSED else None,
        )
        for at, outcome in enumerate(Outcome)
    ]
    return Round("https://airflow.example", findings, left=2)


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_findings_fit_a_terminal(width: int, *, ascii_only: bool) -> None:
    """
    Each run that does not go on has a row, and what follows for it below.
    """
    lines = [
        line.plain
        for line in draw_findings(
            rounds(), short_id=lambda run_id: run_id[-8:], width=width, ascii_only=ascii_only, zone=UTC
        )
    ]

    text = " ".join(" ".join(lines).split())
    assert max(map(cell_len, lines)) <= width
    assert not ascii_only or all(line.isascii() for line in lines)
    assert text.count("manual__") == 0
    assert "failed, published: lost: why" in text
    assert "failed, and announced: B" in text
    assert "an attempt of it may still work" in text
    assert "no callback has ever reported it" in text
    assert "https://airflow.example answered something else" in text
    assert "still running in Airflow" not in text
    assert summary(rounds()) == (
        "11 runs without an end: 1 ended, 1 running, 1 just ended, 1 published before, 1 already reported, "
        "1 not known to Airflow, but perhaps alive, 1 of other publishers, 1 not known to Airflow, "
        "1 without an answer, 2 not asked about"
    )


# The command


def run_command(*arguments: str) -> tuple[int, str]:
    """
    Run `dkist-core reconcile` in this process, and return its exit code and its output.
    """
    result = CliRunner().invoke(app, ["reconcile", *arguments])
    return result.exit_code, result.output


def test_the_command_publishes_what_it_shows(airflow: FakeAirflow) -> None:
    """
    A dry run shows the same, and publishes nothing.
    """
    publish(*begun(), *begun("manual__2"))
    airflow.add(DAG, RUN, "failed", began=BEGAN, over=OVER, A="success", B="failed")
    airflow.add(DAG, "manual__2", "running", began=BEGAN)
    events = published()

    dry_code, dry = run_command("--dry-run")
    unchanged = published()
    code, output = run_command()
    again_code, again = run_command()

    assert (dry_code, code, again_code) == (0, 0, 0)
    assert unchanged == events
    assert "failed, would be published: found by Airflow's REST API" in dry
    assert "failed, and would be announced: B" in dry
    assert dry.endswith("2 runs without an end: 1 ended, 1 running; nothing was published\n")
    assert "failed, published: found by Airflow's REST API, since no callback reported it" in output
    assert output.endswith("2 runs without an end: 1 ended, 1 running\n")
    assert again == "1 run without an end: 1 running\n"
    assert [each.name for each in published()[len(events) :]] == ["task.failed", "task.failed", "workflow.failed"]


def test_the_command_writes_json(airflow: FakeAirflow) -> None:
    """
    Each run with its outcome and its end.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER, A="success", B="success")

    code, output = run_command("--json")

    written = json.loads(output)
    assert code == 0
    assert (written["airflow"], written["dryRun"], written["problem"], written["notAsked"]) == (
        airflow.url,
        False,
        None,
        0,
    )
    (run,) = written["runs"]
    assert (run["workflowName"], run["outcome"], run["end"]["state"]) == ("W", "ended", "finished")
    assert run["end"]["tasks"] == {"A": "success", "B": "success"}


def test_the_command_fails_where_airflow_does_not_answer(airflow: FakeAirflow) -> None:
    """
    One sentence, and the number of the runs that were left.
    """
    publish(*begun())
    airflow.misbehaves = lambda *_: (503, b"")

    code, output = run_command()

    assert code == 1
    assert output.startswith("1 run without an end: 1 not asked about\n")
    assert f"error: Airflow at {airflow.url} does not answer: found 503" in output.replace("\n", " ")


def test_the_command_judges_by_what_a_service_has_taken_in(airflow: FakeAirflow) -> None:
    """
    A service that lags may still have to take in the end that seems to be missing; one that lags by minutes is broken.
    """
    publish(*begun())
    now = datetime.now(UTC)
    airflow.add(DAG, RUN, "success", began=BEGAN, over=now - timedelta(seconds=90))
    with Collector(read_settings()) as service:
        take_in(service)
        assert service._service.acquire()
        results = [run_command()]
        for seconds_ago in (180, 60):
            with service._database.transaction() as transaction:
                until = (now - timedelta(seconds=seconds_ago)).timestamp()
                transaction.execute(LISTENING.insert().values(bus=archive_of(service.bus), since=until, until=until))
            results.append(run_command())
        service._service.release()

    (unknown_code, unknown), (stale_code, stale), (code, output) = results
    assert (unknown_code, stale_code) == (1, 1)
    assert "does not have all events yet; try again in a minute" in unknown.replace("\n", " ")
    since = local_time(now - timedelta(seconds=180), "%m-%d %H:%M:%S", None)
    assert f"the store is complete until {since} only" in stale.replace("\n", " ")
    assert (code, output.splitlines()[-1]) == (0, "1 run without an end: 1 just ended")


def test_only_chosen_workflows_are_asked_about(airflow: FakeAirflow) -> None:
    """
    Where several Airflows report to one bus, each command is about the workflows of one of them.
    """
    publish(*begun())
    airflow.add(DAG, RUN, "success", began=BEGAN, over=OVER)

    assert run_command("--workflow", "V*") == (0, "no run of a workflow 'V*' is without an end\n")
    assert run_command("--workflow", "W*")[1].endswith("1 run without an end: 1 ended\n")
