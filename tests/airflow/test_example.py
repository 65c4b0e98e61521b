"""
The example pipeline as an operator runs it: exported, started by REST, on each executor, seen from the bus.

Not here: failures (test_faults).
"""

from pathlib import Path

from dkist_processing_core.events import Event, Reporter, TaskDispatched
from dkist_processing_core.identity.trace_context import derived_trace_id
from dkist_processing_core.runs import State
from tests.airflow.ground import SECONDS, Ground
from tests.services.airflow import AIRFLOW_VARIABLE
from tests.services.otlp import OtlpReceiver, Request, Span
from tests.services.processes import with_environment
from tests.traces import problems_of

DAG = "raw_to_l1_solar_calibration_1.0"
TASKS = {
    "ParseFrames": "default",
    "EstimateBackground": "default",
    "EstimateFlat": "default",
    "CorrectFrames": "default",
    "FitLimb": "default",
    "MeasureQuality": "default",
    "AlignFrames": "high_memory",
    "MakeContactSheet": "default",
}


def run_it(ground: Ground) -> str:
    """
    Start the example for recipe run 1, and return its id when its end is on the bus.
    """
    ground.airflow.wait_for_dag(DAG)
    run_id = ground.airflow.trigger(DAG, {"recipe_run_id": 1})
    ground.airflow.wait_for_run(DAG, run_id, "success", "failed", seconds=2 * SECONDS)
    ground.listener.wait_for_end(run_id)
    return run_id


def assert_all_is_told(ground: Ground, run_id: str) -> None:
    """
    Assert that every reporter has reported all that it can see of every task, and that the fold equals the run.
    """
    events = ground.listener.of(run_id)
    view = ground.listener.view(run_id)
    said = {(event.reported_by, event.name, getattr(event, "task_name", None)) for event in events}
    expected: set[tuple[Reporter, str, str | None]] = {
        (Reporter.ENGINE, "workflow.started", None),
        (Reporter.ENGINE, "workflow.finished", None),
    }
    for task in TASKS:
        expected |= {
            (Reporter.ENGINE, "task.dispatched", task),
            (Reporter.LAUNCHER, "task.dispatched", task),
            (Reporter.LAUNCHER, "task.started", task),
            (Reporter.TASK, "task.finished", task),
        }

    assert {each for each in said if each[1] != "task.progressed"} == expected
    assert {(task.name, task.state, len(task.attempts), task.engine_state) for task in view.tasks} == {
        (task, State.FINISHED, 1, "success") for task in TASKS
    }
    assert (view.state, view.verdict, view.run.recipe_run_id) == (State.FINISHED, State.FINISHED, 1)
    assert {event.recipe_run_id for event in events} == {1}
    assert view.graph is not None
    assert sorted(view.graph.nodes) == sorted(TASKS)
    assert queues_in(events) == TASKS
    assert view.run.run_id not in ground.listener.announced()
    assert (ground.folder / "solar" / "1" / "contact_sheet.png").stat().st_size > 10_000


def queues_in(events: list[Event]) -> dict[str, str | None]:
    """
    Return the queue of each task.
    """
    return {event.task_name: event.queue for event in events if isinstance(event, TaskDispatched)}


def test_the_example_runs_with_the_local_executor(ground: Ground) -> None:
    """
    The tasks run in an environment that was built from wheels, and holds no Airflow.
    """
    run_id = run_it(ground)

    assert_all_is_told(ground, run_id)
    folders = [path for path in ground.environments.iterdir() if path.is_symlink() and "solar" in path.name]
    assert folders
    assert not [found for folder in folders for found in Path(folder).glob("lib/python*/site-packages/airflow")]


def run_that_is_killed_once(ground: Ground, otlp: OtlpReceiver) -> list[Span]:
    """
    Run a workflow whose task is killed in its first attempt, and return the spans of the run when they have arrived.
    """
    dag_id = "faulty_is_killed_once_1.0"
    ground.airflow.wait_for_dag(dag_id)
    run_id = ground.airflow.trigger(dag_id, {"recipe_run_id": ground.next_number()})
    ground.airflow.wait_for_run(dag_id, run_id, "success", "failed", seconds=SECONDS)
    ground.listener.wait_for_end(run_id)

    def arrived(receiver: OtlpReceiver) -> list[Span]:
        own = [span for span in receiver.spans() if span.attributes.get("messaging.message.conversation_id") == run_id]
        found = [span for span in receiver.spans() if own and span.trace_id == own[0].trace_id]
        # The root comes last: from the DAG processor, or from Airflow's scheduler.
        return found if any(not span.parent_id for span in found) else []

    return otlp.wait_for(arrived, SECONDS)


def is_over_http(request: Request) -> bool:
    """
    Return True if an export came over HTTP, and not over gRPC.
    """
    return request.headers.get("content-type") == "application/x-protobuf"


def test_the_example_runs_on_two_celery_workers(celery_ground: Ground, otlp: OtlpReceiver) -> None:
    """
    Each worker takes the tasks of its queue, and the whole run is one trace with one root.

    That holds over HTTP, and over gRPC with Airflow's own tracing, which knows no other protocol by these variables.
    """
    airflow = celery_ground.airflow
    run_id = run_it(celery_ground)
    tasks = airflow.tasks_of(DAG, run_id)
    taken = {
        worker_queue: {task for task in TASKS if f"task_id='{task}'" in worker.log_since_start()}
        for worker_queue, worker in zip(("default", "high_memory"), airflow.workers, strict=True)
    }
    run = celery_ground.listener.view(run_id).run
    spans = otlp.wait_for(
        lambda receiver: [span for span in receiver.spans() if span.name == run.workflow_name] and receiver.spans()
    )
    derived = run_that_is_killed_once(celery_ground, otlp)
    over_http = [is_over_http(request) for request in otlp.requests("traces")]
    # The API server begins Airflow's own trace of a run, the scheduler and the workers continue it.
    airflow.environment |= otlp.grpc_env | {"AIRFLOW__TRACES__OTEL_ON": "True"}
    for component in airflow.components:
        component.stop()
    airflow.start()
    ridden = run_that_is_killed_once(celery_ground, otlp)
    over_grpc = [not is_over_http(request) for request in otlp.requests("traces")[len(over_http) :]]
    airflow.close()

    assert_all_is_told(celery_ground, run_id)
    assert {name: (task["queue"], task["pool"]) for name, task in tasks.items()} == {
        name: (queue, f"{queue}_pool") for name, queue in TASKS.items()
    }
    assert taken == {queue: {task for task in TASKS if TASKS[task] == queue} for queue in ("default", "high_memory")}
    assert {span.trace_id for span in spans} == {f"{derived_trace_id(run):032x}"}
    (root,) = (span for span in spans if span.name == run.workflow_name)
    attempts = [span for span in spans if span.name in TASKS]
    assert all(over_http)
    assert all(over_grpc)
    assert root.parent_id == ""
    assert sorted(span.name for span in attempts) == sorted(TASKS)
    assert {span.parent_id for span in attempts} == {root.span_id}
    assert all(root.start <= span.start and span.end <= root.end for span in attempts)
    assert with_environment(AIRFLOW_VARIABLE, airflow.mark) == set()
    assert problems_of([*spans]) == problems_of(derived) == problems_of(ridden) == []
    assert [span.name for span in derived if not span.parent_id] == ["faulty_is_killed_once"]
    # Airflow's own span of the run is the root, and ours of the attempts are below Airflow's span of the task.
    assert [span.name for span in ridden if not span.parent_id] == ["dag_run.faulty_is_killed_once_1.0"]
    for of_run in (derived, ridden):
        killed, retried = sorted((span for span in of_run if span.name == "IsKilledOnce"), key=lambda span: span.start)
        assert (killed.status_code, retried.status_code) == ("ERROR", "UNSET")
        assert killed.attributes["error.type"] == "signal"
