"""
The reports of the Airflow callbacks for a context, with any missing or odd values; on the embedded journal.

The contexts are plain values with the names that Airflow 3.3 gives. Not here: a real Airflow (tests/airflow).
"""

import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from dkist_processing_core import budget
from dkist_processing_core.airflow import _bus_reader, _unreported, _waiting_time
from dkist_processing_core.airflow.callbacks import Callbacks
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import (
    Cause,
    Event,
    Reporter,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskSkipped,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
    decode,
    identity_of,
)
from dkist_processing_core.failure_callback import chat_ops_notification
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import derived_trace_id, parse_traceparent
from dkist_processing_core.journal.notes import SUCCEEDED, TERMINATION_REQUESTED
from dkist_processing_core.runs import RunState
from tests.services.broker import Broker
from tests.services.sockets import BlackHole
from tests.waiting import SECONDS

RUN = Run("l0_to_l1_visp", "1.0", "manual__1", 5)
BEGAN = datetime(2026, 11, 22, 9, tzinfo=UTC)
CALLBACKS = Callbacks(
    workflow_name=RUN.workflow_name,
    workflow_version=RUN.workflow_version,
    nodes=["First", "Second"],
    edges=[("First", "Second")],
)


class AirflowException(Exception):  # noqa: N818 - the engine's own name
    """
    Stands for Airflow's exception, which is recognised by its name.
    """


class AirflowTaskTimeout(BaseException):
    """
    Stands for Airflow's exception, which is not a subclass of Exception.
    """


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As in a new process, nothing has been waited for, and no bus has been read.
    """
    monkeypatch.setattr(_waiting_time, "_left", {})
    monkeypatch.setattr(_bus_reader, "_readers", {})


def context(task: str = "First", attempt: int = 1, *, error: object = None, **more: Any) -> dict[str, Any]:
    """
    Return the context that Airflow passes to a callback of a task.
    """
    instance = SimpleNamespace(
        task_id=task,
        dag_id="l0_to_l1_visp_1.0",
        run_id=RUN.run_id,
        try_number=attempt,
        max_tries=1,
        map_index=-1,
        start_date=BEGAN,
        end_date=BEGAN + timedelta(seconds=3),
        log_url="http://airflow.example/log",
        queue="default",
        **more,
    )
    dag_run = SimpleNamespace(
        run_id=RUN.run_id,
        conf={"recipe_run_id": 5},
        start_date=BEGAN - timedelta(seconds=1),
        end_date=BEGAN + timedelta(seconds=4),
        clear_number=0,
    )
    return {"ti": instance, "task_instance": instance, "dag_run": dag_run, "run_id": RUN.run_id, "exception": error}


def ended_context(states: dict[str, str | None], **more: Any) -> dict[str, Any]:
    """
    Return the context that Airflow passes to a callback of a DAG whose tasks have these states.
    """
    return context(get_task_states=lambda **asked: {asked["run_ids"][0]: states}, **more) | {"reason": "task_failure"}


def published() -> list[Event]:
    """
    Return the events in the journal, in order.
    """
    return [decode(body, "application/cloudevents+json") for key, body in rows() if not key.startswith("recipe.")]


def announced() -> list[dict[str, Any]]:
    """
    Return the failure messages in the journal, in order.
    """
    return [json.loads(body) for key, body in rows() if key.startswith("recipe.")]


def rows() -> list[tuple[str, bytes]]:
    """
    Return routing key and body of each message in the journal.
    """
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        return [(entry.message.routing_key, entry.message.body) for entry in journal.read(0, 1000)]


def publish(*events: Event) -> None:
    """
    Put events of other reporters into the journal.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)


def said_by_launcher(event_class: type[Any], task: str, attempt: int = 1, **facts: Any) -> Event:
    """
    Return an event of a launcher's.
    """
    event: Event = event_class(
        time=datetime.now(UTC),
        reported_by=Reporter.LAUNCHER,
        **identity_of(Attempt(RUN, task, attempt, 2)),
        **facts,
    )
    return event


def test_the_first_task_s_dispatch_begins_the_run() -> None:
    """
    The event has the graph, and the start known to Airflow, from which the id is derived.
    """
    CALLBACKS.on_execute(context())

    run, attempt = published()
    assert isinstance(run, WorkflowStarted)
    assert run.started_at == BEGAN - timedelta(seconds=1)
    assert run.graph is not None
    assert (run.graph.nodes, run.graph.edges) == (("First", "Second"), (("First", "Second"),))
    assert isinstance(attempt, TaskDispatched)
    assert (attempt.task_name, attempt.attempt, attempt.max_attempts) == ("First", 1, 2)
    assert (attempt.queue, attempt.reported_by, attempt.recipe_run_id) == ("default", Reporter.ENGINE, 5)
    traces = [parse_traceparent(event.traceparent or "") for event in (run, attempt)]
    assert {trace[0] for trace in traces if trace} == {derived_trace_id(RUN)}


def test_a_later_task_s_dispatch_does_not() -> None:
    """
    A run begins with the tasks without upstreams.
    """
    CALLBACKS.on_execute(context("Second"))

    assert [event.name for event in published()] == ["task.dispatched"]


def test_a_success_is_left_to_those_who_saw_it() -> None:
    """
    Task and launcher have reported it.
    """
    CALLBACKS.on_success(context())

    assert published() == []


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (
            AirflowException("Bash command failed. The command returned a non-zero exit code 3."),
            {"cause": Cause.EXIT_CODE, "exit_code": 3},
        ),
        (
            AirflowException("Bash command failed. The command returned a non-zero exit code -9."),
            {"cause": Cause.LOST, "signal": "SIGKILL", "message": "its launcher was killed"},
        ),
        (AirflowTaskTimeout("Timeout, PID: 7"), {"cause": Cause.TIMEOUT, "message": "Timeout, PID: 7"}),
        (
            KeyError("recipe"),
            {"cause": Cause.EXCEPTION, "error_type": "KeyError", "message": "'recipe'"},
        ),
        (None, {"cause": Cause.LOST, "message": "the engine lost the task"}),
        ("killed externally", {"cause": Cause.LOST, "message": "killed externally"}),
    ],
)
@pytest.mark.parametrize(("callback", "final"), [("on_failure", None), ("on_retry", False)])
def test_a_failure_is_told_as_far_as_the_engine_knows(
    error: object, facts: dict[str, Any], callback: str, *, final: bool | None
) -> None:
    """
    Provisionally: nearer reporters outrank it. Its announcement states whether it is final.
    """
    getattr(CALLBACKS, callback)(context(error=error))

    (event,) = published()
    assert isinstance(event, TaskFailed)
    assert (event.provisional, event.final, event.duration_seconds) == (True, final, 3.0)
    assert event.log_url == "http://airflow.example/log"
    assert {name: getattr(event, name) for name in facts} == facts


def test_a_task_that_is_passed_over_is_skipped() -> None:
    """
    The event has the reason that Airflow got.
    """
    CALLBACKS.on_skipped(context(error=AirflowException("not today")))

    (event,) = published()
    assert isinstance(event, TaskSkipped)
    assert (event.reason, event.provisional) == ("not today", True)


def test_a_mapped_instance_has_its_number() -> None:
    """
    Airflow gives all of them one name.
    """
    mapped = context()
    mapped["ti"].map_index = 3
    CALLBACKS.on_retry(mapped)

    assert [getattr(event, "task_name", None) for event in published()] == ["First[3]"]


def test_the_end_of_a_run_has_the_state_of_every_task() -> None:
    """
    The tasks are in the workflow's order, with the run's own times.
    """
    CALLBACKS.on_dag_success(ended_context({"Second": None, "First": "success", "Other": "removed"}))

    began, event = published()
    assert isinstance(began, WorkflowStarted)
    assert isinstance(event, WorkflowFinished)
    assert list(event.tasks.items()) == [("First", "success"), ("Second", "no_status"), ("Other", "removed")]
    assert (event.ended_at, event.duration_seconds) == (BEGAN + timedelta(seconds=4), 5.0)
    assert announced() == []


def test_for_a_failure_that_nobody_told_of_the_run_s_end_does() -> None:
    """
    As for a task whose runner was killed: one event without an attempt number, and one message; a repetition adds none.
    """
    failed = ended_context({"First": "failed", "Second": "upstream_failed"})
    CALLBACKS.on_dag_failure(failed)
    CALLBACKS.on_dag_failure(failed)

    began, end, lost = published()[:3]
    assert isinstance(began, WorkflowStarted)
    assert isinstance(end, WorkflowFailed)
    assert end.reason == "task_failure"
    assert isinstance(lost, TaskFailed)
    assert (lost.task_name, lost.attempt, lost.cause, lost.provisional) == ("First", None, Cause.LOST, True)
    (message,) = announced()
    assert (message["taskName"], message["dagRunId"]) == ("First", RUN.run_id)


def test_a_failure_that_was_told_is_not_told_again_at_the_run_s_end() -> None:
    """
    A subscriber to failures receives the failure of each attempt once.
    """
    publish(said_by_launcher(TaskFailed, "First", cause=Cause.SIGNAL, final=True))
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    assert [event.name for event in published()] == [
        "task.failed",
        "workflow.started",
        "workflow.failed",
        "task.failed",
    ]
    assert [message["taskName"] for message in announced()] == ["First"]


def test_an_end_that_is_on_its_way_to_the_bus_is_waited_for(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The host of the task may need a little longer than Airflow needs to end the run.
    """
    monkeypatch.setattr(_unreported, "_DELIVERY_SECONDS", SECONDS)
    monkeypatch.setattr(_waiting_time, "SECONDS", dict.fromkeys(budget.CALLBACK_PROCESS, 2 * SECONDS))
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    announcement = {"cause": Cause.SIGNAL, "provisional": True, "final": True, "reported_by": Reporter.ENGINE}
    end = said_by_launcher(TaskFailed, "First", cause=Cause.SIGNAL, final=True)
    publish(structs.replace(end, **announcement))
    telling = threading.Timer(0.5, publish, [end])

    telling.start()
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))
    telling.join()

    _bus_reader._readers[RUN.workflow_name].replace()
    with subscribe(replay=True, timeout=0.0, every_report=True) as events:
        failed = [event for event in events if isinstance(event, TaskFailed)]
    assert [(event.reported_by, event.attempt) for event in failed] == [(Reporter.ENGINE, 1), (Reporter.LAUNCHER, 1)]


def test_the_end_of_a_run_reads_a_broker_that_another_process_could_not_reach(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On a busy host a connection may take longer than a task waits for one, and no task waits for the end of its run. It
    delivers what waits on the host as well.
    """
    monkeypatch.setenv("EVENT_FLUSH_TIMEOUT", str(SECONDS))
    monkeypatch.setattr(_bus_reader, "_READING_SECONDS", SECONDS)
    monkeypatch.setattr(_waiting_time, "SECONDS", dict.fromkeys(budget.CALLBACK_PROCESS, 2 * SECONDS))
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    end = said_by_launcher(TaskFailed, "First", cause=Cause.SIGNAL, final=True)
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(end, structs.replace(end, provisional=True, reported_by=Reporter.ENGINE))
        assert publisher.flush(SECONDS)
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        journal.unreachable_until = time.time() + 3600

        CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

        assert journal.pending(0, 100) == []
    _bus_reader._readers[RUN.workflow_name].replace()
    with subscribe(replay=True, timeout=0.0, every_report=True) as events:
        found = [event.name for event in events]
    assert found == ["task.failed", "task.failed", "workflow.started", "workflow.failed"]


def test_a_failure_that_this_host_cannot_deliver_is_not_told_again_at_the_run_s_end(
    refusing_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On a busy host a launcher ends before it has a connection: its reports stay in the outbox. Those of another workflow
    are about other tasks, although its run has the same id.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    end = said_by_launcher(TaskFailed, "First", cause=Cause.SIGNAL, final=True)
    announcement = structs.replace(end, provisional=True, reported_by=Reporter.ENGINE)
    other = structs.replace(end, task_name="Second", workflow_name="other")
    with Publisher.open(DKISTProcessingCoreConfiguration.read(), delivers=False) as publisher:
        publisher.publish(end, announcement, other)

    CALLBACKS.on_dag_failure(ended_context({"First": "failed", "Second": "failed"}))

    lost = [event for event in published() if isinstance(event, TaskFailed) and event.cause == Cause.LOST]
    assert [event.task_name for event in lost] == ["Second", "Second"]
    assert [message["taskName"] for message in announced()] == ["Second"]


def test_a_run_whose_first_tasks_were_not_executed_has_a_start_all_the_same() -> None:
    """
    The start has the id that their callback would have given it.
    """
    CALLBACKS.on_dag_success(ended_context({"First": "skipped", "Second": "skipped"}))
    CALLBACKS.on_execute(context())

    began, _, again, _ = published()
    assert isinstance(began, WorkflowStarted)
    assert began.id == again.id


def test_a_failure_that_was_announced_is_not_announced_again_at_the_run_s_end() -> None:
    """
    Its own callback has announced it, perhaps on another host.
    """
    publish(
        TaskFailed(
            time=datetime.now(UTC),
            reported_by=Reporter.ENGINE,
            **identity_of(Attempt(RUN, "First", 2, 2)),
            cause=Cause.EXIT_CODE,
            provisional=True,
            final=True,
        )
    )
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    assert announced() == []


def test_a_task_that_was_cleared_and_failed_again_is_announced() -> None:
    """
    The announcement of the earlier attempt does not count for this one.
    """
    publish(
        TaskFailed(
            time=datetime.now(UTC),
            reported_by=Reporter.ENGINE,
            **identity_of(Attempt(RUN, "First", 1, 1)),
            cause=Cause.EXIT_CODE,
            provisional=True,
            final=True,
        ),
        said_by_launcher(TaskDispatched, "First", 2),
    )
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    assert [message["taskName"] for message in announced()] == ["First"]


def test_a_task_that_its_launcher_saw_succeed_is_never_announced() -> None:
    """
    This holds for any later failure on Airflow's side.
    """
    publish(said_by_launcher(TaskFinished, "First"))
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    assert announced() == []


def test_a_failure_is_announced_once() -> None:
    """
    The message is that of release 7.x, which is not an event.
    """
    error = AirflowException("Bash command failed. The command returned a non-zero exit code 1.")
    for _ in range(2):
        said = chat_ops_notification(context(error=error), "l0_to_l1_visp", "1.0", "First")

    assert said is not None
    (message,) = announced()
    assert {name: message[name] for name in ("workflowName", "workflowVersion", "taskName", "dagRunId", "logUrl")} == {
        "workflowName": "l0_to_l1_visp",
        "workflowVersion": "1.0",
        "taskName": "First",
        "dagRunId": RUN.run_id,
        "logUrl": "http://airflow.example/log",
    }


TOLD = AirflowException("Bash command failed. The command returned a non-zero exit code 143.")


def told_to_end() -> None:
    """
    Write the note of a launcher whose task was requested to end.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.remember(TERMINATION_REQUESTED + Attempt(RUN, "First", 1, 2).key)


def in_dag(given: dict[str, Any]) -> dict[str, Any]:
    """
    Return a context whose DAG has the callbacks of an exported one.
    """
    return given | {"dag": SimpleNamespace(dag_id="l0_to_l1_visp_1.0", on_failure_callback=[CALLBACKS.on_dag_failure])}


@pytest.mark.parametrize(("state", "count"), [("success", 0), ("restarting", 0), ("failed", 1), ("running", 1)])
def test_a_task_that_was_told_to_end_is_announced_only_where_it_is_to_fail(state: str, count: int) -> None:
    """
    If it was marked a success by hand, or cleared, Airflow calls its failure callback in spite of that.
    """
    told_to_end()
    states = {"First": state}
    told = context(error=TOLD, get_task_states=lambda **asked: {asked["run_ids"][0]: states})
    chat_ops_notification(told, "l0_to_l1_visp", "1.0", "First")

    assert len(announced()) == count


def test_the_engine_is_not_asked_about_what_nobody_ended() -> None:
    """
    Its client may retry for a long time, and the task's end would wait.
    """
    asked: list[dict[str, Any]] = []
    failing = context(error=TOLD, get_task_states=lambda **given: asked.append(given))
    chat_ops_notification(failing, "l0_to_l1_visp", "1.0", "First")

    assert asked == []
    assert len(announced()) == 1


@pytest.mark.parametrize("placed", [in_dag, dict], ids=["with the run's callback", "without"])
def test_an_engine_that_does_not_answer_is_not_waited_for(placed: Any) -> None:
    """
    If the run has a callback at its end, that one reports the failure; otherwise the failure is announced now.
    """
    told_to_end()
    silent = threading.Event()
    began = time.monotonic()
    chat_ops_notification(
        placed(context(error=TOLD, get_task_states=lambda **_: silent.wait(20))), "l0_to_l1_visp", "1.0", "First"
    )
    took = time.monotonic() - began
    silent.set()

    assert len(announced()) == (0 if placed is in_dag else 1)
    assert took < 5


def test_an_engine_that_answers_late_is_heard() -> None:
    """
    Right after a run is marked failed, whose end is not reported, Airflow's server is busy.
    """
    told_to_end()

    def late(**asked: Any) -> dict[str, Any]:
        threading.Event().wait(0.3)
        return {asked["run_ids"][0]: {"First": "failed"}}

    chat_ops_notification(in_dag(context(error=TOLD, get_task_states=late)), "l0_to_l1_visp", "1.0", "First")

    assert len(announced()) == 1


@pytest.mark.quiet
@pytest.mark.parametrize("answers", [True, False], ids=["an engine that answers late", "one that does not"])
def test_engine_and_broker_have_one_time_together(
    black_hole: BlackHole,
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,  # noqa: FBT001
) -> None:
    """
    The time of the request is taken from the bus's time: launcher and task have used their part of the two seconds for
    observing.
    """
    mesh = {"interservice-bus": {"mesh_address": black_hole.host, "mesh_port": black_hole.port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    told_to_end()
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        journal.unreachable_until = 0
    released = threading.Event()

    def late(**asked: Any) -> dict[str, Any]:
        released.wait(0.5 if answers else 20)
        return {asked["run_ids"][0]: {"First": "failed"}}

    began = time.monotonic()
    chat_ops_notification(context(error=TOLD, get_task_states=late), "l0_to_l1_visp", "1.0", "First")
    took = time.monotonic() - began
    released.set()

    assert took < 1.2


def test_what_the_dag_processor_calls_failed_is_left_to_the_end_of_the_run() -> None:
    """
    Its worker is lost, and the task may have reported success. Files of other releases have no callback at the run's
    end.
    """
    lost = context(error=None)

    assert chat_ops_notification(in_dag(lost), "l0_to_l1_visp", "1.0", "First") is None
    assert chat_ops_notification(lost, "l0_to_l1_visp", "1.0", "First") is not None


def test_an_attempt_that_failed_for_good_after_a_clear_is_announced_again() -> None:
    """
    The new failure is news for the person who cleared it.
    """
    error = AirflowException("Bash command failed. The command returned a non-zero exit code 1.")
    for clears in (0, 0, 1):
        failing = context(attempt=clears + 1, error=error)
        failing["dag_run"].clear_number = clears
        chat_ops_notification(failing, "l0_to_l1_visp", "1.0", "First")

    assert len(announced()) == 2


def test_a_success_on_this_host_is_known_at_the_end_of_the_run_without_the_bus() -> None:
    """
    The bus may be unreachable, and Airflow may be wrong.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.remember(SUCCEEDED + Attempt(RUN, "First", 2, 2).key)
    CALLBACKS.on_dag_failure(ended_context({"First": "failed", "Second": "failed"}))

    assert [message["taskName"] for message in announced()] == ["Second"]


def test_a_broker_that_is_away_doubles_no_announcement(refusing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The run's end cannot see earlier announcements. It reports with the same id, which this host sends once.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    error = AirflowException("Bash command failed. The command returned a non-zero exit code 1.")
    for task in ("First", "Second"):
        chat_ops_notification(context(task, 2, error=error), "l0_to_l1_visp", "1.0", task)
    CALLBACKS.on_dag_failure(ended_context({"First": "failed", "Second": "failed"}))

    assert sorted(message["taskName"] for message in announced()) == ["First", "Second"]


def test_a_false_failure_is_not_taken_for_an_announcement() -> None:
    """
    A cleared task has called its callback, without an announcement. If it is lost afterwards, it is announced at the
    run's end.
    """
    told_to_end()
    states = {"First": "restarting"}
    cleared = context(error=TOLD, get_task_states=lambda **asked: {asked["run_ids"][0]: states})
    CALLBACKS.on_failure(cleared)
    chat_ops_notification(cleared, "l0_to_l1_visp", "1.0", "First")
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    assert [message["taskName"] for message in announced()] == ["First"]


def test_an_engine_that_tells_no_states_leaves_them_to_the_bus() -> None:
    """
    The DAG processor of Airflow 3.0 does not support the request, so it must not be sent.
    """
    publish(said_by_launcher(TaskDispatched, "First"), said_by_launcher(TaskFinished, "Second"))
    CALLBACKS.on_dag_failure(context())

    assert [message["taskName"] for message in announced()] == ["First"]
    (end,) = (event for event in published() if isinstance(event, WorkflowFailed))
    assert end.tasks == {}


def test_the_announcement_is_told_with_the_message() -> None:
    """
    Both are stored in one transaction, so that the end of the run finds the announcement on the bus.
    """
    error = AirflowException("Bash command failed. The command returned a non-zero exit code 1.")
    CALLBACKS.on_failure(context(error=error))
    chat_ops_notification(context(error=error), "l0_to_l1_visp", "1.0", "First")
    CALLBACKS.on_dag_failure(ended_context({"First": "failed"}))

    failures = [event for event in published() if isinstance(event, TaskFailed) and event.attempt is not None]
    assert [event.final for event in failures] == [None, True]
    assert len({event.id for event in failures}) == 1
    assert len(announced()) == 1
    (run,) = RunState(published()).runs
    end = run.tasks[0].attempts[0].end
    assert isinstance(end, TaskFailed)
    assert end.final is True


def test_a_failure_after_a_success_is_not_announced() -> None:
    """
    The launcher has noted the success on this host, and Airflow reported another end afterwards.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.remember(SUCCEEDED + Attempt(RUN, "First", 1, 2).key)

    assert chat_ops_notification(context(error=AirflowTaskTimeout("late")), "l0_to_l1_visp", "1.0", "First") is None
    assert chat_ops_notification(context(attempt=2), "l0_to_l1_visp", "1.0", "First") is not None


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.binary(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        | st.builds(
            lambda values: SimpleNamespace(**values),
            st.dictionaries(
                st.sampled_from(
                    ["task_id", "run_id", "try_number", "max_tries", "conf", "start_date", "log_url", "get_task_states"]
                ),
                inner,
            ),
        )
    ),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(
    st.sampled_from(["ti", "task_instance", "dag_run", "run_id", "exception", "reason", "dag", "task"]), GARBAGE
)


@pytest.mark.parametrize(
    "callback",
    [
        CALLBACKS.on_execute,
        CALLBACKS.on_success,
        CALLBACKS.on_failure,
        CALLBACKS.on_retry,
        CALLBACKS.on_skipped,
        CALLBACKS.on_dag_success,
        CALLBACKS.on_dag_failure,
        lambda given: chat_ops_notification(given, "l0_to_l1_visp", "1.0", "First"),
    ],
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_context=CONTEXTS)
def test_no_context_makes_a_callback_raise(callback: Any, given_context: dict[str, Any]) -> None:
    """
    Airflow's work goes on with any context.
    """
    assert callback(given_context) is None or callback.__name__ == "<lambda>"


@given(ti=GARBAGE, dag_run=GARBAGE)
def test_no_instance_makes_a_macro_fail(ti: object, dag_run: object) -> None:
    """
    A template that cannot be rendered would fail the task.
    """
    rendered = [
        CALLBACKS.python,
        CALLBACKS.log_url(ti),
        CALLBACKS.queued_at(ti, dag_run),
        CALLBACKS.traceparent(ti, dag_run),
        CALLBACKS.tracestate(ti),
    ]

    assert all(isinstance(each, str) for each in rendered)


def test_a_callback_without_settings_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The message does not contain the password.
    """
    monkeypatch.setenv("MESH_CONFIG", "no JSON")
    monkeypatch.setenv("ISB_PASSWORD", "s3cret-word")
    with caplog.at_level(logging.WARNING):
        CALLBACKS.on_execute(context())

    assert "the attempt's dispatch is not published: MESH_CONFIG" in caplog.text
    assert "s3cret-word" not in caplog.text


def test_a_worker_may_name_the_interpreter_of_its_launchers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    This is for workers without the library in Airflow's environment.
    """
    monkeypatch.setenv("DKIST_CORE_PYTHON", str(tmp_path / "python"))

    assert CALLBACKS.python == str(tmp_path / "python")


def test_a_root_task_is_ready_since_the_run_began() -> None:
    """
    For other tasks, and for later attempts, a worker cannot know the time.
    """
    first, second = context(), context("Second")

    assert float(CALLBACKS.queued_at(first["ti"], first["dag_run"])) == (BEGAN - timedelta(seconds=1)).timestamp()
    assert CALLBACKS.queued_at(second["ti"], second["dag_run"]) == ""
    assert CALLBACKS.queued_at(context(attempt=2)["ti"], first["dag_run"]) == ""
