"""
Tasks of a published pipeline, run on this host by the documented command, and their events at a broker.

Not here: each way to end (test_local, test_launched_environments).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.arrivals import Arrivals
from tests.published.environments import Installed
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver

SCOPE = "dkist_processing_core"
DEPLOYED = {
    "OTEL_SERVICE_NAME": "tasks",
    "DKIST_SERVICE_VERSION": "3",
    "NOMAD_ALLOC_ID": "a1",
    "NOMAD_ALLOC_NAME": "name",
    "NOMAD_GROUP_NAME": "group",
}
NOOP_OF_7 = """
from dkist_processing_test.tasks.noop import NoOpTask
with NoOpTask(1, "input_to_output_test_noop-flow", "dev") as task: task()
"""
PREFIX = "edu.nso.dkist."
FAILURES = "recipe.run.failure.q"


class Run:
    """
    One run of a workflow of the pipeline, to its end, and all its events.
    """

    def __init__(
        self, name: str, clients: Installed, broker: Broker, state: Path, telemetry: Mapping[str, str]
    ) -> None:
        """
        Run the workflow `name` of the module of that name, or `module:name`, with the variables of its telemetry.
        """
        module, _, attribute = name.partition(":")
        arrivals = Arrivals(broker, DKISTProcessingCoreConfiguration.read())
        # The last events must have arrived when the command has ended, on a slow machine as well.
        variables = {"DKIST_CORE_STATE_DIR": str(state), "EVENT_FLUSH_TIMEOUT": "30"}
        self.done = clients.run(
            *("dkist-core", "run", f"dkist_processing_test.workflows.{module}:{attribute or module}"),
            *("--recipe-run-id", "1"),
            variables=broker.env | variables | dict(telemetry),
        )
        arrivals.read()
        self.events: list[dict[str, Any]] = [json.loads(body) for _, body in arrivals.received]
        with broker.connect() as connection:
            channel = connection.channel()
            count = channel.queue_declare(FAILURES, passive=True).method.message_count
            self.announced = [json.loads(channel.basic_get(FAILURES, auto_ack=True)[2]) for _ in range(count)]

    @property
    def run_id(self) -> str:
        """
        The run's id, the same in every event.
        """
        (found,) = {event["data"]["dagRunId"] for event in self.events}
        return str(found)

    def reports(self) -> Counter[tuple[str, str, str, int | None]]:
        """
        Count each type of event, by reporter, task and attempt; the task is empty for events of the run.

        Without the samples: on a busy machine a task may live long enough for some.
        """
        return Counter(
            (
                event["type"].removeprefix(PREFIX),
                event["reportedby"],
                event["data"].get("taskName", ""),
                event["data"].get("attempt"),
            )
            for event in self.events
            if not event["type"].endswith("task.sampled")
        )

    def order(self) -> list[str]:
        """
        Return the tasks in the order of their starts, each of which must follow the end of the one before.
        """
        moments = sorted(
            (event["time"], event["type"] == f"{PREFIX}task.started", event["data"]["taskName"])
            for event in self.events
            if event["type"] in {f"{PREFIX}task.started", f"{PREFIX}task.finished"}
        )
        assert [is_start for _, is_start, _ in moments] == [True, False] * (len(moments) // 2)
        return [name for _, is_start, name in moments if is_start]

    def of(self, kind: str, reporter: str) -> list[dict[str, Any]]:
        """
        Return the statements of the events of a type, as a reporter gave them.
        """
        return [
            event["data"] for event in self.events if (event["type"], event["reportedby"]) == (PREFIX + kind, reporter)
        ]


@pytest.fixture
def run(request: pytest.FixtureRequest, clients: Installed, owned: Broker, state_dir: Path, otlp: OtlpReceiver) -> Run:
    """
    The run that a test names by a parameter.
    """
    return Run(request.param, clients, owned, state_dir, otlp.grpc_env | DEPLOYED)


@pytest.mark.parametrize("run", ["noop:noop_flow"], indirect=True)
def test_tasks_run_one_after_the_other(run: Run, replaced: Installed, otlp: OtlpReceiver) -> None:
    """
    Each has its dispatch, its start and its end, and so has the run; no failure is announced.

    A collector gets the counter, the resource and the attributes of spans that it got from the replaced release.
    """
    assert run.done.returncode == 0, run.done.stderr[-4000:]
    assert run.reports() == Counter(
        [
            ("workflow.started", "engine", "", None),
            ("task.dispatched", "launcher", "NoOpTask", 1),
            ("task.started", "launcher", "NoOpTask", 1),
            ("task.finished", "task", "NoOpTask", 1),
            ("task.dispatched", "launcher", "NoOpTask2", 1),
            ("task.started", "launcher", "NoOpTask2", 1),
            ("task.finished", "task", "NoOpTask2", 1),
            ("workflow.finished", "engine", "", None),
        ]
    )
    assert run.order() == ["NoOpTask", "NoOpTask2"]
    (start,), (end,) = run.of("workflow.started", "engine"), run.of("workflow.finished", "engine")
    assert run.run_id.startswith("local__1__")
    assert {(event["data"]["workflowName"], event["data"]["recipeRunId"]) for event in run.events} == {
        ("input_to_output_test_noop-flow", 1)
    }
    assert start["graph"] == {"nodes": ["NoOpTask", "NoOpTask2"], "edges": [["NoOpTask", "NoOpTask2"]]}
    assert end["tasks"] == {"NoOpTask": "success", "NoOpTask2": "success"}
    assert run.announced == []

    names = {f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": otlp.grpc_endpoint for signal in ("TRACES", "METRICS")}
    before = replaced.run("python", "-c", NOOP_OF_7, variables=names | DEPLOYED)
    assert before.returncode == 0, before.stderr[-4000:]
    phases = ("Pre Run", "Run", "Post Run")
    old_spans, new_spans = (
        {span.name: span for span in otlp.spans() if span.scope == scope and span.attributes.get("task.name") == task}
        for scope, task in (("dkist_service_configuration", "NoOpTask"), (SCOPE, "NoOpTask"))
    )
    for name in phases:
        assert old_spans[name].attributes.items() <= new_spans[name].attributes.items()
    assert new_spans["NoOpTask"].attributes.items() >= old_spans["Run"].attributes.items()
    counters = [metric for metric in otlp.metrics() if metric.name == "dkist.processing.tasks.executed"]
    (old,), (first, second) = ([each for each in counters if each.scope == scope] for scope in ("dkist", SCOPE))
    assert (old.kind, old.unit, old.description) == (first.kind, first.unit, first.description)
    assert [point.value for each in (old, first, second) for point in each.points] == [1, 1, 1]
    assert first.points[0].attributes == old.points[0].attributes
    assert second.points[0].attributes == {**old.points[0].attributes, "task.name": "NoOpTask2"}
    for each in (old, old_spans["Run"], first, new_spans["Run"], new_spans["NoOpTask"]):
        resource = {name: each.resource[f"service.{name}"] for name in ("name", "version", "instance.id", "name.alias")}
        assert resource == {"name": "tasks", "version": "3", "instance.id": "a1", "name.alias": "dkist-processing"}


@pytest.mark.parametrize("run", ["fail"], indirect=True)
def test_task_that_raises_fails_the_run(run: Run) -> None:
    """
    Its end has the pipeline's error, and the message of release 7.x is sent once.
    """
    assert run.done.returncode == 1, run.done.stderr[-4000:]
    assert run.reports() == Counter(
        [
            ("workflow.started", "engine", "", None),
            ("task.dispatched", "launcher", "FailTask", 1),
            ("task.started", "launcher", "FailTask", 1),
            ("task.failed", "task", "FailTask", 1),
            ("workflow.failed", "engine", "", None),
        ]
    )
    (end,), (run_end,) = run.of("task.failed", "task"), run.of("workflow.failed", "engine")
    assert (end["cause"], end["phase"], end["final"], end["provisional"]) == ("exception", "run", True, False)
    assert (end["errorType"], end["message"]) == ("RuntimeError", "Failure is guaranteed")
    assert "dkist_processing_test/tasks/fail.py" in end["stack"]
    assert run_end["tasks"] == {"FailTask": "failed"}
    (announced,) = run.announced
    assert announced.pop("conversationId")
    assert announced == {
        "workflowName": "input_to_output_test_fail",
        "workflowVersion": "dev",
        "taskName": "FailTask",
        "dagRunId": run.run_id,
        "logUrl": None,
    }


@pytest.mark.parametrize("run", ["exercise_multiprocessing"], indirect=True)
def test_task_that_works_in_processes_of_its_own_is_one_task(run: Run) -> None:
    """
    Its pool, whose size comes from the library's settings, reports nothing.
    """
    assert run.done.returncode == 0, run.done.stderr[-4000:]
    (count,) = re.findall(r"completed (\d+) CPU-bound workloads using worker processes", run.done.stdout)
    assert int(count) > 1
    assert run.reports() == Counter(
        [
            ("workflow.started", "engine", "", None),
            ("task.dispatched", "launcher", "ExerciseMultiprocessing", 1),
            ("task.started", "launcher", "ExerciseMultiprocessing", 1),
            ("task.finished", "task", "ExerciseMultiprocessing", 1),
            ("workflow.finished", "engine", "", None),
        ]
    )
    (dispatch,), (end,) = run.of("task.dispatched", "launcher"), run.of("task.finished", "task")
    assert dispatch["queue"] == "multi_core"
    assert end["phases"].keys() == {"pre_run", "run", "post_run"}
    assert run.announced == []
