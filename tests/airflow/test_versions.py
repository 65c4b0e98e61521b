"""
Exported workflows on earlier versions of Airflow, each installed from the index. The tests are long, so only `make
soak` runs them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core.events import TaskFailed, TaskFinished
from dkist_processing_core.identity.trace_context import derived_trace_id, parse_traceparent
from dkist_processing_core.runs import State
from tests.airflow.ground import SECONDS, Ground
from tests.airflow.test_reconcile import assert_each_has_its_end, silent_runs
from tests.running import ROOT
from tests.services.broker import Broker
from tests.services.postgres import PostgresServer

# Each with a day soon after its release, whose packages are installed with it. Airflow allows all later ones, but does
# not start with some: 3.2 not with those of `fastapi` and `cadwyn`, 3.0 not with that of `pyjwt`.
VERSIONS = {"3.0.6": "2025-09-01", "3.1.8": "2026-03-20", "3.2.2": "2026-06-01"}
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def installed(folder: Path, version: str) -> Path:
    """
    Return an environment with a version of Airflow, as of its day, and this checkout.
    """
    virtualenv = folder / f"airflow-{version}"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, virtualenv], check=True)
    install = [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(virtualenv)]
    needs = [f"apache-airflow=={version}", "apache-airflow-providers-standard", "psycopg2-binary", "asyncpg"]
    subprocess.run([*install, "--exclude-newer", VERSIONS[version], *needs], check=True)
    subprocess.run([*install, ROOT], check=True)
    return virtualenv


@pytest.mark.parametrize("version", VERSIONS)
def test_an_exported_workflow_runs_unchanged(
    version: str, postgres: PostgresServer, broker: Broker, wheels: Path, state_dir: Path, tmp_path: Path
) -> None:
    """
    It succeeds, fails and is retried there as on the newest one, and every report arrives; where no callback reports an
    end, a reconciliation finds it.
    """
    ground = Ground(tmp_path, postgres, broker, wheels=wheels, state=state_dir, virtualenv=installed(tmp_path, version))
    with ground.open():
        runs: dict[str, str] = {}
        for number, name in enumerate(("succeeds", "raises", "fails_once"), 1):
            dag_id = f"faulty_{name}_1.0"
            ground.airflow.wait_for_dag(dag_id)
            runs[name] = ground.airflow.trigger(dag_id, {"recipe_run_id": number})
        for name, run_id in runs.items():
            ground.airflow.wait_for_run(f"faulty_{name}_1.0", run_id, "success", "failed", seconds=2 * SECONDS)
            ground.listener.wait_for_end(run_id)
        views = {name: ground.listener.view(run_id) for name, run_id in runs.items()}
        announced = list(ground.listener.announced())
        (tmp_path / "watching").mkdir()
        with silent_runs(ground, tmp_path / "watching") as silent:
            assert_each_has_its_end(silent)

    assert {name: view.verdict for name, view in views.items()} == {
        "succeeds": State.FINISHED,
        "raises": State.FAILED,
        "fails_once": State.FINISHED,
    }
    (failed,) = views["raises"].tasks[0].attempts
    first, second = views["fails_once"].tasks[0].attempts
    assert isinstance(failed.end, TaskFailed)
    assert (failed.cause, failed.end.final, failed.end.error_type) == ("exception", True, "ArithmeticError")
    # The DAG processor of 3.0 cannot return states.
    assert views["raises"].tasks[1].engine_state == (None if version == "3.0.6" else "upstream_failed")
    assert isinstance(first.end, TaskFailed)
    assert (first.end.final, first.end.max_attempts) == (False, 2)
    assert isinstance(second.end, TaskFinished)
    assert announced == [runs["raises"]]
    for run_id in runs.values():
        events = ground.listener.of(run_id)
        traces = {found[0] for event in events if (found := parse_traceparent(event.traceparent or ""))}
        assert traces == {derived_trace_id(events[0].run)}
        assert {event.reported_by.value for event in events} == {"engine", "launcher", "task"}
