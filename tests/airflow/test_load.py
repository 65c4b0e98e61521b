"""
The DAG that Airflow gets from an exported workflow: loaded by Airflow's own Python, which has none of its tasks.

Not here: running it (test_example, test_faults).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.ground import EXAMPLE, FAULTY
from tests.running import ROOT, command
from tests.sample import workflow
from tests.services.airflow import ENVIRONMENT
from tests.test_export import GOLDEN

SEEN = """
import json, sys
from pathlib import Path
{load}
def of(callback):
    return [getattr(callback, "__name__", "partial"), getattr(callback, "keywords", None)]
print("SEEN", json.dumps({{
    "dag_id": dag.dag_id, "tags": sorted(dag.tags), "schedule": dag.schedule, "catchup": dag.catchup,
    "dag callbacks": [of(each)[0] for each in (dag.on_success_callback, dag.on_failure_callback)],
    "relatives": sorted(task.task_id for task in dag.get_task("Third").get_flat_relatives(upstream=True)),
    "tasks": {{
        task.task_id: {{
            "upstream": sorted(task.upstream_task_ids), "queue": task.queue, "pool": task.pool, "retries": task.retries,
            "delay": task.retry_delay.total_seconds(), "owner": task.owner, "push": task.do_xcom_push,
            "skips": task.skip_on_exit_code, "append": task.append_env, "command": task.bash_command,
            "callbacks": {{
                kind: [of(each) for each in getattr(task, f"on_{{kind}}_callback")]
                for kind in ("execute", "success", "retry", "skipped", "failure")
            }},
        }}
        for task in dag.tasks
    }},
}}))
"""
BY_FILE = 'names = {"__name__": "dag"}; exec(Path(sys.argv[1]).read_text(), names); dag = names["dag"]'
BY_LOAD = "from tests.sample import workflow; dag = workflow().load()"


def in_airflow(program: str, *arguments: str | Path, home: Path, options: tuple[str, ...] = ()) -> Any:
    """
    Run a program by the Python that has Airflow, in a new home.
    """
    environ = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(home), "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", *options, "-c", program, *arguments],
        env=environ | {"AIRFLOW__CORE__UNIT_TEST_MODE": "False"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def seen(load: str, *arguments: Path, home: Path) -> dict[str, Any]:
    """
    Return Airflow's view of a DAG that a statement loads.
    """
    done = in_airflow(SEEN.format(load=load), *arguments, home=home)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SEEN "))
    found: dict[str, Any] = json.loads(line.removeprefix("SEEN "))
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """
    Return Airflow's view of the exported file.
    """
    folder = tmp_path_factory.mktemp("exported")
    return seen(BY_FILE, workflow().export_dag(folder), home=folder)


def test_the_engine_sees_the_workflow(exported: dict[str, Any]) -> None:
    """
    Id, tags, edges, queues, pools, retries, owner, and every callback.
    """
    tasks = exported["tasks"]

    assert exported["dag_id"] == "l0_to_l1_visp_sample_1.2.3"
    assert exported["tags"] == ["1.2.3", "l0", "l1", "nightly", "visp"]
    assert (exported["schedule"], exported["catchup"]) == (None, False)
    assert exported["dag callbacks"] == ["on_dag_success", "on_dag_failure"]
    assert exported["relatives"] == ["First", "Second"]
    assert {name: task["upstream"] for name, task in tasks.items()} == {
        "First": [],
        "Second": ["First"],
        "Third": ["First", "Second"],
    }
    assert {name: (task["queue"], task["pool"]) for name, task in tasks.items()} == {
        "First": ("default", "default_pool"),
        "Second": ("high_memory", "high_memory_pool"),
        "Third": ("default", "default_pool"),
    }
    assert [(tasks[name]["retries"], tasks[name]["delay"]) for name in ("First", "Second")] == [(0, 60.0), (3, 90.0)]
    for task in tasks.values():
        assert (task["owner"], task["push"], task["append"]) == ("DKIST Data Center", False, True)
        assert task["skips"] == []
    assert tasks["Second"]["callbacks"] == {
        "execute": [["on_execute", None]],
        "success": [["on_success", None]],
        "retry": [["on_retry", None]],
        "skipped": [["on_skipped", None]],
        "failure": [
            ["on_failure", None],
            [
                "partial",
                {
                    "workflow_name": "l0_to_l1_visp_sample",
                    "workflow_version": "1.2.3",
                    "task_name": "Second",
                },
            ],
        ],
    }


def test_what_is_loaded_is_what_is_exported(exported: dict[str, Any], tmp_path: Path) -> None:
    """
    Both use the same source.
    """
    assert seen(BY_LOAD, home=tmp_path) == exported


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.py.txt")), ids=lambda file: file.name)
def test_a_file_that_was_exported_before_still_loads(file: Path, tmp_path: Path) -> None:
    """
    The names and arguments that it uses are a versioned interface.
    """
    found = seen(BY_FILE, file, home=tmp_path)

    assert found["relatives"] == ["First", "Second"]


def test_a_node_gives_its_operator(tmp_path: Path) -> None:
    """
    The operator is in no DAG, so that it can be added to one.
    """
    program = """
from tests.sample import workflow
from airflow import DAG
operator = workflow().nodes[1].operator
assert operator.task_id == "Second" and operator.queue == "high_memory" and not operator.has_dag()
with DAG("other", schedule=None) as dag:
    dag.add_task(operator)
assert dag.get_task("Second") is operator
"""
    in_airflow(program, home=tmp_path)


def test_a_look_at_the_file_imports_nothing_of_ours_but_the_callbacks(tmp_path: Path) -> None:
    """
    The library imports no pydantic, pika or OpenTelemetry there, independent of Airflow's own imports.
    """
    file = workflow().export_dag(tmp_path)
    program = "import runpy, sys; runpy.run_path(sys.argv[1])"
    done = in_airflow(program, file, home=tmp_path, options=("-X", "importtime"))

    by_us = brought_by("dkist_processing_core", done.stderr)
    assert {name for name in by_us if name.startswith("dkist_processing_core")} == {
        "dkist_processing_core",
        "dkist_processing_core.airflow",
        "dkist_processing_core.airflow.callbacks",
    }
    assert not {name.partition(".")[0] for name in by_us} & {"pydantic", "pika", "opentelemetry", "sqlite3", "airflow"}
    assert "airflow" in done.stderr


def brought_by(package: str, report: str) -> set[str]:
    """
    Return the modules at or below those of a package in a report of import times.
    """
    found: set[str] = set()
    depth: int | None = None
    # A module follows its imports in the report, and is less indented: read backwards, they come after it.
    for line in reversed([line for line in report.splitlines() if line.startswith("import time:") and "|" in line]):
        shown = line.rpartition("|")[2]
        level, name = len(shown) - len(shown.lstrip()), shown.strip()
        if depth is not None and level <= depth:
            depth = None
        if depth is None and name.partition(".")[0] == package:
            depth = level
        if depth is not None:
            found.add(name)
    return found


def test_workflows_are_validated_by_loading_them_where_airflow_is(tmp_path: Path) -> None:
    """
    As in a package's own pipeline, which has Airflow among its test dependencies.
    """
    program = f"""
import sys; sys.path.insert(0, {str(FAULTY.parent)!r})
sys.argv[1:] = ["workflows", "validate", "faulty"]
from dkist_processing_core.cli import main
main()
"""
    done = in_airflow(program, home=tmp_path)

    lines = done.stdout.splitlines()
    assert "✓ faulty_fails_once 1.0, 1 task: no cycle, exports, compiles, loads" in lines
    assert all(line.endswith("loads") for line in lines)


def test_airflow_reads_what_an_archive_is_unpacked_to(tmp_path: Path) -> None:
    """
    Each of its workflows is loaded under its name, and none is refused. In the packed archive it finds no workflow.
    """
    export = command("workflows", "export", EXAMPLE.name, "--path", str(tmp_path), "--zip")
    subprocess.run(export, env=os.environ | {"PYTHONPATH": str(EXAMPLE.parent)}, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.zip")
    shutil.unpack_archive(archive, tmp_path / "dags")
    (tmp_path / "packed").mkdir()
    archive.rename(tmp_path / "packed" / archive.name)
    program = """
import sys
from airflow.dag_processing.dagbag import DagBag
for name, folder in zip(["UNPACKED", "PACKED"], sys.argv[1:], strict=True):
    bag = DagBag(folder)
    print(name, sorted(bag.dag_ids), bag.import_errors)
"""
    done = in_airflow(program, tmp_path / "dags", tmp_path / "packed", home=tmp_path)

    assert {"UNPACKED ['raw_to_l1_solar_calibration_dev'] {}", "PACKED [] {}"} <= set(done.stdout.splitlines())


IN_A_FUNCTION = """
from dkist_processing_core import TaskBase, Workflow

def made():
    class First(TaskBase):
        def run(self): ...
    class Second(First): ...
    workflow = Workflow(process_category="a", process_name="b", workflow_package="scratch", workflow_version="1")
    workflow.add_node(First)
    workflow.add_node(Second, upstreams=First)
    return workflow

dag = made().load()
print(sorted(dag.get_task("Second").upstream_task_ids), type(made().nodes[0].operator).__name__)
try:
    made().export_dag()
except ValueError as error:
    print(error)
"""


def test_a_workflow_of_a_test_s_own_tasks_can_be_looked_at(tmp_path: Path) -> None:
    """
    As in 7.x, Airflow loads it; a workflow that no worker could run is still not exported.
    """
    done = in_airflow(IN_A_FUNCTION, home=tmp_path)

    seen, refusal = done.stdout.splitlines()[-2:]
    assert seen == "['First'] BashOperator"
    assert refusal.startswith("First of a_b cannot be exported: another process imports a task by ")
    assert not (tmp_path / "dags").exists()
