"""
The names of the library that real pipelines use, each used as they do.

The pipeline is `tests.instrument`, which runs on each Python; the published ones are in tests/published. Not here:
behaviour that needs a real Airflow (tests/airflow).
"""

import enum
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dkist_processing_core
from dkist_processing_core import ResourceQueue, RunState, TaskBase, Workflow, build_utils, subscribe
from dkist_processing_core import task as task_module
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.notebook_utils import export_notebook_by_path, wait_for_notebook_save
from dkist_processing_core.workflow import dag_name, workflow_name_from_details
from tests.instrument import workflows
from tests.instrument.config import UNKNOWN, InstrumentConfiguration
from tests.instrument.tasks import Calibrate, Parse, Teardown
from tests.instrument.workflows.l0 import calibration, parse
from tests.running import ROOT, run_python
from tests.services.otlp import OtlpReceiver

IDENTITY: dict[str, Any] = {"recipe_run_id": 5, "workflow_name": "l0_to_l1_instrument_full", "workflow_version": "dev"}


def established(task: type[Parse] = Parse, **identity: Any) -> Parse:
    """
    Return a task constructed with the three standard arguments.
    """
    return task(**(IDENTITY | identity))


# Tasks


def test_a_task_is_the_same_by_either_path() -> None:
    """
    The two names are `dkist_processing_core.TaskBase` and `dkist_processing_core.task.TaskBase`.
    """
    assert TaskBase is task_module.TaskBase
    assert dkist_processing_core.TaskBase is TaskBase


def test_a_task_knows_what_it_was_made_with() -> None:
    """
    After the library's constructor, which accepts exactly the three keywords.
    """
    task = established(Calibrate)

    assert list(inspect.signature(TaskBase.__init__).parameters)[1:] == list(IDENTITY)
    assert task.log == ["Calibrate of 5, l0_to_l1_instrument_full dev"]


def test_every_phase_can_be_overridden() -> None:
    """
    The override calls the overridden method; the exception or end of the `with` block closes the task.
    """
    with established() as task:
        task.is_task_manual = True
        task()
        task.rollback()

    assert task.log[1:] == ["by hand", "run", "undone", "closed"]


@pytest.mark.parametrize("phase", ["pre_run", "post_run", "rollback"])
def test_what_is_overridden_raises_nothing(phase: str) -> None:
    """
    A subclass may call it without a reason.
    """
    assert getattr(TaskBase, phase)(established()) is None
    TaskBase.__exit__(established(), None, None, None)


def test_a_call_may_be_left_out() -> None:
    """
    A subclass's `__call__` decides whether an attempt takes place.
    """
    established(recipe_run_id=0)()
    established(recipe_run_id=6)()

    runs = RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs
    assert [(view.run.recipe_run_id, [task.state.value for task in view.tasks]) for view in runs] == [(6, ["finished"])]


def test_a_status_that_the_author_set_stands(otlp: OtlpReceiver) -> None:
    """
    The span is called by position or by keyword.
    """
    program = (
        "from tests.instrument.tasks import Parse\n"
        "with Parse(recipe_run_id=1, workflow_name='W', workflow_version='1') as task: task()"
    )

    done = run_python(program, otlp.grpc_env)

    found = {span.name: (span.status_code, span.status_message) for span in otlp.spans()}
    assert done.returncode == 0, done.stderr
    assert (found["Complete"], found["Read"]) == (("ERROR", "half of it"), ("UNSET", ""))


def test_meters_cost_nothing_where_nobody_listens() -> None:
    """
    Counters and observable gauges are created in constructors, and used.
    """
    program = (
        "import sys; from tests.instrument.tasks import Parse\n"
        "with Parse(recipe_run_id=1, workflow_name='W', workflow_version='1') as task: task()\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry.sdk')))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_telemetry_has_its_established_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The names of metrics, and of the attributes that distinguish the measurements of tasks.
    """
    bare = established().base_telemetry_attributes
    for name in ("ID", "NAME"):
        monkeypatch.setenv(f"NOMAD_ALLOC_{name}", f"allocation-{name}")
    monkeypatch.setenv("NOMAD_GROUP_NAME", "group")

    assert TaskBase.format_metric_name("tasks.reads") == "dkist.processing.tasks.reads"
    assert bare == {
        "recipe.run.id": 5,
        "workflow.name": "l0_to_l1_instrument_full",
        "workflow.version": "dev",
        "task.name": "Parse",
        "nomad.allocation.id": "unknown-allocation-id",
        "nomad.allocation.name": "unknown-allocation-name",
        "nomad.allocation.group": "unknown-allocation-group",
    }
    assert established().base_telemetry_attributes == bare | {
        "nomad.allocation.id": "allocation-ID",
        "nomad.allocation.name": "allocation-NAME",
        "nomad.allocation.group": "group",
    }


# Workflows


def test_a_workflow_is_named_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its version comes from `BUILD_VERSION`; the same names come from the functions of the module.
    """
    monkeypatch.setenv("BUILD_VERSION", "1.2.3")
    parts = {"input_data": "l0", "output_data": "l1", "category": "instrument", "detail": "full"}

    workflow = Workflow(**parts, workflow_package=__package__)

    name = workflow_name_from_details(**parts)
    assert (workflow.workflow_name, workflow.workflow_version) == ("l0_to_l1_instrument_full", "1.2.3")
    assert name == workflow.workflow_name
    assert dag_name(workflow_name=name, workflow_version="1.2.3") == workflow.dag_name == f"{name}_1.2.3"
    assert {key: getattr(workflow, key) for key in parts} == parts


def test_a_node_is_placed_by_keywords_and_by_position() -> None:
    """
    It has no, one or several upstreams; a queue is optional.
    """
    first, second, last = calibration.nodes

    assert [node.task for node in calibration.nodes] == [Parse, Calibrate, Teardown]
    assert [node.upstreams for node in calibration.nodes] == [(), (Parse,), (Parse, Calibrate)]
    assert [node.resource_queue for node in (first, second, last)] == ["default", "high_memory", "default"]
    assert second.extras == ("frozen", "asdf", "quality")
    assert parse.nodes[0].resource_queue == ResourceQueue.DEFAULT


def test_resource_queues_are_words() -> None:
    """
    They are in lower case, like Airflow's queues.
    """
    assert issubclass(ResourceQueue, enum.StrEnum)
    assert {queue.name: str(queue) for queue in ResourceQueue} == {
        "DEFAULT": "default",
        "HIGH_MEMORY": "high_memory",
        "MULTI_CORE": "multi_core",
        "GPU": "gpu",
    }


def test_a_package_is_found_checked_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By position, as every package's own test does, or by the keyword of release 7.x.
    """
    monkeypatch.chdir(tmp_path)

    build_utils.validate_workflows(workflows)
    build_utils.validate_workflows(workflow_package=workflows)
    found = build_utils.extract_workflows_from_package(workflows)
    dags = build_utils.export_dags(workflow_package=workflows, path="dags")
    notebooks = build_utils.export_notebooks(workflow_package=workflows, path="notebooks")
    dockerfile = build_utils.export_notebook_dockerfile(workflow_package=workflows, path="notebooks")

    names = [f"l0_to_l1_instrument_{detail}_dev" for detail in ("full", "parse")]
    assert found == [calibration, parse]
    assert dags == [Path("dags") / f"{name}.py" for name in names]
    assert notebooks == [Path("notebooks") / f"{name}.ipynb" for name in names]
    assert dockerfile == Path("Dockerfile")
    assert {path.name for path in tmp_path.iterdir()} == {"dags", "notebooks", "Dockerfile"}


def test_a_notebook_has_the_name_by_which_its_tasks_look_for_it(tmp_path: Path) -> None:
    """
    Its functions accept their keywords of release 7.x.
    """
    notebook = calibration.export_notebook(path=tmp_path)
    content = json.loads(notebook.read_bytes())
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["a sentinel\n"]}]
    notebook.write_text(json.dumps(content))

    wait_for_notebook_save(notebook_path=notebook, attempts=1, delay_s=0, sentinel="a sentinel")

    name = dag_name(workflow_name=calibration.workflow_name, workflow_version=calibration.workflow_version)
    assert notebook == tmp_path / f"{name}.ipynb"
    assert b"a sentinel" in export_notebook_by_path(notebook_path=notebook)


# Settings


def test_settings_are_subclassed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Fields of a client are variables in the same way; broker and credentials are plain texts and a number.
    """
    monkeypatch.setenv("SCRATCH_BASE_PATH", "/scratch")
    monkeypatch.setenv("MESH_CONFIG", '{"interservice-bus": {"mesh_address": "broker", "mesh_port": 5671}}')
    monkeypatch.setenv("ISB_USERNAME", "me")
    monkeypatch.setenv("ISB_PASSWORD", "secret")

    settings = InstrumentConfiguration()

    assert settings.scratch_base_path == "/scratch"
    values = (
        settings.isb_mesh_service.host,
        settings.isb_mesh_service.port,
        settings.isb_username,
        settings.isb_password,
    )
    assert values == ("broker", 5671, "me", "secret")
    assert [type(value) for value in values] == [str, int, str, str]


def test_an_unknown_service_falls_back_to_the_client_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It equals the "unknown" of another package from the left, which pydantic's own comparison never does.
    """
    without = InstrumentConfiguration().inventory
    monkeypatch.setenv("MESH_CONFIG", '{"inventory": {"mesh_address": "redis", "mesh_port": 6380}}')
    named = InstrumentConfiguration().inventory

    ours = DKISTProcessingCoreConfiguration().service_mesh_detail("x")
    assert ours.__eq__(UNKNOWN)
    assert not UNKNOWN.__eq__(ours)
    assert (without.host, without.port) == ("localhost", 6379)
    assert (named.host, named.port) == ("redis", 6380)


def test_retries_are_configured_and_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By `RETRY_CONFIG`, with the defaults of release 7.x; a client overrides the derived values.
    """
    assert InstrumentConfiguration().isb_connection_retryer == {
        "delay_min": 1,
        "delay_max": 300,
        "backoff": 2,
        "jitter_min": 1,
        "jitter_max": 10,
        "attempts": -1,
    }
    monkeypatch.setenv("RETRY_CONFIG", '{"retry_tries": 3, "retry_jitter": [2, 4]}')
    changed = InstrumentConfiguration().isb_connection_retryer
    assert (changed["attempts"], changed["jitter_min"], changed["jitter_max"]) == (3, 2, 4)


def test_settings_are_changed_in_a_copy_and_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `model_copy` for a notebook, and the number of processors as a property of the class.
    """
    settings = InstrumentConfiguration()
    notebook = settings.model_copy(update={"is_notebook_execution_environment": True})
    monkeypatch.setattr(InstrumentConfiguration, "cpu_count", property(lambda _: 7))

    assert (settings.is_notebook_execution_environment, notebook.is_notebook_execution_environment) == (False, True)
    assert (settings.cpu_count, notebook.cpu_count) == (7, 7)


def test_settings_are_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """
    A client logs its own settings with the library's, or alone.
    """
    caplog.set_level("INFO")
    settings = InstrumentConfiguration(object_store_secret_key="canary")

    settings.log_configurations(log_parent_configurations=False)
    own = list(caplog.messages)
    settings.log_configurations()

    assert own == ["scratch_base_path: scratch/", "object_store_secret_key: [redacted]"]
    assert len(caplog.messages) > len(own) + len(DKISTProcessingCoreConfiguration.model_fields)
    assert "canary" not in caplog.text


# The pipeline itself


def test_the_pipeline_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each task runs in a separate process, which finds it by the name of its module.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))

    result = calibration.run(recipe_run_id=5)

    assert {name: outcome.state.value for name, outcome in result.items()} == dict.fromkeys(
        ["Parse", "Calibrate", "Teardown"], "success"
    )
