"""
The Airflow that other tests rely on runs its workflows, from the deployed settings.

The parts that the tests of faults use in any case are tested separately in `make soak`.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.services.airflow import (
    CONFIG,
    Airflow,
    AirflowError,
    MissingAirflowError,
    require_airflow,
)
from tests.services.processes import is_alive, wait_for_end

# Two tasks, of which the second may run in another queue.
DAG = """
from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG("{name}", schedule=None):
    first = BashOperator(task_id="first", bash_command="echo $CONF", env={{"CONF": "{{{{ dag_run.conf | tojson }}}}"}})
    first >> BashOperator(task_id="second", bash_command="echo done; {command}", queue="{queue}", pool="{queue}_pool")
"""


def two_tasks(name: str, *, queue: str = "default", command: str = ":") -> str:
    """
    Return a DAG file of two tasks: the second runs in this queue, its pool, with this command at the end.
    """
    return DAG.format(name=name, queue=queue, command=command)


def test_missing_environment_is_one_sentence(tmp_path: Path) -> None:
    """
    If no Airflow is installed, a test states the command that installs it.
    """
    with pytest.raises(MissingAirflowError, match=r"^Airflow is missing: run `make \S+/\.stamp-airflow`$"):
        require_airflow(tmp_path)


class TestLocalExecutor:
    """
    An Airflow whose scheduler runs the tasks.
    """

    def test_dag_runs_to_success(self, local_airflow: Airflow) -> None:
        """
        A run's configuration reaches the first task, and the second task runs after it.
        """
        local_airflow.add_dag("local_success", two_tasks("local_success", queue="high_memory"))
        local_airflow.wait_for_dag("local_success")

        run = local_airflow.trigger("local_success", {"recipe_run_id": 7})
        ended = local_airflow.wait_for_run("local_success", run, "success")

        tasks = local_airflow.tasks_of("local_success", run)
        assert ended["conf"] == {"recipe_run_id": 7}
        assert {name: task["state"] for name, task in tasks.items()} == {"first": "success", "second": "success"}
        assert tasks["second"]["pool"] == "high_memory_pool"
        assert '{"recipe_run_id": 7}' in local_airflow.log_of("local_success", run, "first")

    def test_pools_are_those_that_we_deploy(self, local_airflow: Airflow) -> None:
        """
        The command imports every pool of the file, and leaves Airflow's default pool unchanged.
        """
        found = local_airflow.rest("GET", "pools")["pools"]

        slots = {pool["name"]: pool["slots"] for pool in found}
        assert slots == {name: pool["slots"] for name, pool in json.loads((CONFIG / "pools.json").read_text()).items()}
        assert slots["default_pool"] == 128

    @pytest.mark.soak
    def test_processes_of_a_task_are_found(self, local_airflow: Airflow) -> None:
        """
        The runner is the parent of the command, which outlives it, and its own parent belongs to the scheduler.
        """
        local_airflow.add_dag("local_killed", two_tasks("local_killed", command="exec </dev/null; exec sleep 300"))
        local_airflow.wait_for_dag("local_killed")
        run = local_airflow.trigger("local_killed")
        processes = local_airflow.wait_for_processes("local_killed", run, "second")
        supervised = processes.supervisor in local_airflow.scheduler.pids

        os.kill(processes.runner, signal.SIGKILL)
        local_airflow.wait_for_task("local_killed", run, "second", "failed")
        orphaned = is_alive(processes.launcher)
        local_airflow.recover()

        assert supervised
        assert orphaned
        assert not is_alive(processes.launcher)

    @pytest.mark.soak
    def test_state_is_set_by_hand(self, local_airflow: Airflow) -> None:
        """
        A running task is marked as on the page, its command ends, and the run follows the mark; cleared, it runs again.
        """
        local_airflow.add_dag("local_marked", two_tasks("local_marked", command="exec </dev/null; exec sleep 300"))
        local_airflow.wait_for_dag("local_marked")
        run = local_airflow.trigger("local_marked")
        first = local_airflow.wait_for_processes("local_marked", run, "second")

        local_airflow.mark_task("local_marked", run, "second", "failed")
        local_airflow.wait_for_run("local_marked", run, "failed")
        ended = wait_for_end([first.launcher], 20) == set()
        local_airflow.clear("local_marked", run, ["second"])
        second = local_airflow.wait_for_processes("local_marked", run, "second")
        local_airflow.mark_task("local_marked", run, "second", "success")
        local_airflow.wait_for_run("local_marked", run, "success")

        assert ended
        assert first.launcher != second.launcher
        assert local_airflow.tasks_of("local_marked", run)["second"]["try_number"] == 2

    @pytest.mark.soak
    def test_killed_scheduler_is_replaced(self, local_airflow: Airflow) -> None:
        """
        A killed scheduler leaves its workers; the next test finds none of them, and a working scheduler.
        """
        local_airflow.add_dag("local_crash", two_tasks("local_crash"))
        local_airflow.wait_for_dag("local_crash")
        before = local_airflow.scheduler.pids

        local_airflow.scheduler.kill()
        local_airflow.recover()
        run = local_airflow.trigger("local_crash")
        local_airflow.wait_for_run("local_crash", run, "success")

        assert not any(is_alive(pid) for pid in before)

    @pytest.mark.soak
    def test_change_of_a_file_is_waited_for(self, local_airflow: Airflow) -> None:
        """
        A run that is started after the wait uses the current file.
        """
        local_airflow.add_dag("local_changed", two_tasks("local_changed"))
        local_airflow.wait_for_dag("local_changed")

        local_airflow.add_dag("local_changed", two_tasks("local_changed").replace("second", "other"))
        local_airflow.wait_for_dag("local_changed")
        run = local_airflow.trigger("local_changed")
        local_airflow.wait_for_run("local_changed", run, "success")

        assert set(local_airflow.tasks_of("local_changed", run)) == {"first", "other"}

    def test_file_that_cannot_be_imported_is_told(self, local_airflow: Airflow) -> None:
        """
        Waiting for the DAG of a broken file ends with the reason.
        """
        file = local_airflow.add_dag("local_broken", 'import no_such_module  # and then airflow.DAG("local_broken")\n')

        with pytest.raises(AirflowError, match="no_such_module"):
            local_airflow.wait_for_dag("local_broken")

        file.unlink()
        assert local_airflow.scheduler.is_running
