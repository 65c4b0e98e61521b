"""
Runs on a real Airflow whose end no callback reports: each has an end on the bus after one reconciliation, by hand or
by a watcher.

Not here: the answers of an Airflow that is broken (test_reconcile of the suite above).
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import TaskFailed, WorkflowEnd
from dkist_processing_core.identity.trace_context import derived_trace_id, parse_traceparent
from dkist_processing_core.reconcile.judgement import Outcome
from dkist_processing_core.reconcile.reconciler import Reconciler
from dkist_processing_core.reconcile.rounds import Round
from dkist_processing_core.runs import State
from tests.airflow.ground import SECONDS, Ground
from tests.running import command
from tests.services.processes import descendants, is_alive
from tests.waiting import wait_until
from tests.watch.test_process import Watch, watching

# Airflow has these in minutes: here it notices within seconds that a host is gone.
_QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}
WAITS, SUCCEEDS = "faulty_waits_1.0", "faulty_succeeds_1.0"


@dataclass
class Silent:
    """
    The runs of which Airflow reports no end, by what happened to them, and what is found about them.
    """

    ground: Ground
    runs: dict[str, str]
    engine: dict[str, dict[str, Any]]
    """The runs as Airflow knows them; without the deleted one."""
    announced: list[str]
    """The run ids of the failure messages before the reconciliation."""
    first: Round
    second: dict[str, Any]
    working: str
    """A run that still works meanwhile."""

    def ends(self, run_id: str) -> set[str]:
        """
        Return the ids of the ends of a run on the bus.
        """
        return {event.id for event in self.ground.listener.of(run_id) if isinstance(event, WorkflowEnd)}


@contextmanager
def silent_runs(ground: Ground, folder: Path) -> Iterator[Silent]:
    """
    Run workflows without a DAG processor, and reconcile their ends.

    The run that works is ended afterwards, and everything runs again.
    """
    airflow, listener = ground.airflow, ground.listener
    for dag_id in (WAITS, SUCCEEDS):
        airflow.wait_for_dag(dag_id)
    numbers: dict[str, int] = {}

    def begin(what: str, dag_id: str = WAITS) -> str:
        numbers[what] = ground.next_number()
        return airflow.trigger(dag_id, {"recipe_run_id": numbers[what]})

    def wait_for_start(what: str) -> None:
        wait_until((ground.folder / f"Waits-{numbers[what]}").exists, SECONDS)
        listener.wait_for(runs[what], "task.started")

    airflow.dag_processor.stop()
    airflow.scheduler.stop()
    airflow.environment |= _QUICK
    airflow.scheduler.start()
    runs: dict[str, str] = {}
    try:
        runs |= {what: begin(what) for what in ("no power", "marked failed", "marked success", "deleted")}
        runs["no callback"] = begin("no callback", SUCCEEDS)
        working = begin("works")
        wait_for_start("no power")
        processes = airflow.wait_for_processes(WAITS, runs["no power"], "Waits")
        end_at_once({processes.launcher, *descendants(processes.launcher), processes.runner, processes.supervisor})
        runners: set[int] = set()
        for what, state in (("marked failed", "failed"), ("marked success", "success"), ("deleted", "failed")):
            wait_for_start(what)
            runners.add(airflow.wait_for_processes(WAITS, runs[what], "Waits").runner)
            airflow.mark_run(WAITS, runs[what], state)
        airflow.wait_for_run(SUCCEEDS, runs["no callback"], "success", seconds=SECONDS)
        airflow.wait_for_run(WAITS, runs["no power"], "failed", seconds=SECONDS)
        for what in ("marked failed", "marked success", "deleted"):
            # Airflow ends the task, and its launcher reports that.
            listener.wait_for(runs[what], "task.failed")
        # The callback announces it then, unless Airflow kills the runner before: it has 5 s for both.
        wait_until(lambda: not any(map(is_alive, runners)), SECONDS, every=0.2)
        ground.drain()
        airflow.rest("DELETE", f"dags/{WAITS}/dagRuns/{runs['deleted']}")
        wait_until((ground.folder / f"Waits-{numbers['works']}").exists, SECONDS)
        assert not [run_id for run_id in runs.values() if any(isinstance(e, WorkflowEnd) for e in listener.of(run_id))]
        engine = {
            what: airflow.run_of(SUCCEEDS if what == "no callback" else WAITS, run_id)
            for what, run_id in runs.items()
            if what != "deleted"
        }
        announced = listener.announced()
        first = reconciled(ground, folder)
        for run_id in runs.values():
            assert [each.outcome for each in first.findings if each.run.run_id == run_id] == [Outcome.ENDED], first
            listener.wait_for_end(run_id)
        yield Silent(ground, runs, engine, announced, first, again(ground, folder), working)
    finally:
        ground.release(numbers["works"])
        airflow.wait_for_run(WAITS, working, "success", "failed", seconds=SECONDS)
        for name in _QUICK:
            del airflow.environment[name]
        airflow.scheduler.stop()
        airflow.recover()
        listener.wait_for_end(working)


def end_at_once(pids: set[int]) -> None:
    """
    Kill processes, of which none notices the end of another, as by a failure of power.
    """
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, how)


def variables_of(ground: Ground, folder: Path) -> dict[str, str]:
    """
    Return the settings of a host that does nothing else.
    """
    return ground.broker.env | {
        "DKIST_CORE_STATE_DIR": str(folder),
        "DKIST_CORE_AIRFLOW_URL": ground.airflow.url,
        "DKIST_CORE_AIRFLOW_USERNAME": "admin",
        "DKIST_CORE_AIRFLOW_PASSWORD": "as all are admins",
    }


def reconciled(ground: Ground, folder: Path) -> Round:
    """
    Run one round as if enough minutes had passed: a round waits for a callback, and for reports of a deleted run.
    """
    values: dict[str, Any] = {name.lower(): value for name, value in variables_of(ground, folder).items()}
    settings = DKISTProcessingCoreConfiguration(**values)
    with Collector(settings) as collector, Publisher.open(settings) as publisher:
        assert collector.catch_up() is None
        reconciler = Reconciler(collector, grace=timedelta())
        found = reconciler.reconcile(publisher, as_of=datetime.now(UTC) + timedelta(minutes=20))
        reconciler.close()
        assert publisher.flush(SECONDS)
    return found


def again(ground: Ground, folder: Path) -> dict[str, Any]:
    """
    Return what a second reconciliation finds, by the command.
    """
    done = subprocess.run(
        command("reconcile", "--json"),
        env=os.environ | variables_of(ground, folder),
        check=True,
        capture_output=True,
        text=True,
    )
    written: dict[str, Any] = json.loads(done.stdout)
    return written


def assert_each_has_its_end(silent: Silent) -> None:
    """
    Assert that each run has one end on the bus, as Airflow knows it, and that the one that works has none.
    """
    assert silent.first.problem is None
    assert [each.outcome for each in silent.first.findings if each.run.run_id == silent.working] == [Outcome.RUNNING]
    assert {what: len(silent.ends(run_id)) for what, run_id in silent.runs.items()} == dict.fromkeys(silent.runs, 1)
    views = {what: silent.ground.listener.view(run_id) for what, run_id in silent.runs.items()}
    assert {what: view.verdict for what, view in views.items()} == {
        "no power": State.FAILED,
        "marked failed": State.FAILED,
        "marked success": State.FINISHED,
        "deleted": State.FAILED,
        "no callback": State.FINISHED,
    }
    for what, run in silent.engine.items():
        assert views[what].ended_at == datetime.fromisoformat(run["end_date"]), what
    assert (views["deleted"].ended_at, str(views["deleted"].reason)[:40]) == (
        None,
        "lost: Airflow does not know this run, de",
    )
    (powerless,) = views["no power"].tasks
    assert (powerless.state, powerless.attempts[-1].cause, powerless.engine_state) == (State.FAILED, "lost", "failed")
    assert [task.state for task in views["no callback"].tasks] == [State.FINISHED] * 2
    announced = silent.ground.listener.announced()
    by_us = {what: announced.count(run) - silent.announced.count(run) for what, run in silent.runs.items()}
    assert {what: by_us[what] for what in ("no power", "marked success", "no callback")} == {
        "no power": 1,
        "marked success": 0,
        "no callback": 0,
    }
    # Either the callback has announced it, or the reconciliation.
    assert {what: announced.count(silent.runs[what]) for what in ("marked failed", "deleted")} == {
        "marked failed": 1,
        "deleted": 1,
    }
    for run_id in silent.runs.values():
        events = silent.ground.listener.of(run_id)
        traces = {span[0] for event in events if (span := parse_traceparent(event.traceparent or ""))}
        assert traces == {derived_trace_id(events[0].run)}
    second = {run["dagRunId"]: run["outcome"] for run in silent.second["runs"]}
    assert second.get(silent.working) == "running"
    assert {outcome for run_id, outcome in second.items() if run_id in silent.runs.values()} == set()


def test_each_run_without_a_callback_has_one_end_after_a_reconciliation(ground: Ground, tmp_path: Path) -> None:
    """
    A second one publishes nothing; a callback that comes after all reports the same occurrence.
    """
    with silent_runs(ground, tmp_path) as silent:
        assert_each_has_its_end(silent)
    listener, late = ground.listener, silent.runs["no callback"]
    wait_until(lambda: sum(isinstance(event, WorkflowEnd) for event in listener.of(late)) > 1, SECONDS)

    assert {what: len(silent.ends(run_id)) for what, run_id in silent.runs.items()} == dict.fromkeys(silent.runs, 1)
    assert listener.view(silent.working).verdict is State.FINISHED
    assert len(silent.ends(silent.working)) == 1
    assert not [event for event in listener.of(silent.working) if isinstance(event, TaskFailed)]


def judged_until(watch: Watch) -> datetime | None:
    """
    Return the time up to which a watcher knows all reports; None before its first judgement.
    """
    moment = watch.health().get("judgedUntil")
    return None if moment is None else datetime.fromisoformat(moment)


@pytest.mark.soak
def test_a_watcher_asks_airflow_again_and_again(ground: Ground, tmp_path: Path) -> None:
    """
    A run that is marked by hand while it watches has one end; one that still works has none before its callback.
    """
    airflow, listener = ground.airflow, ground.listener
    airflow.wait_for_dag(WAITS)
    numbers = [ground.next_number() for _ in range(2)]
    marked, working = (airflow.trigger(WAITS, {"recipe_run_id": number}) for number in numbers)
    try:
        for number, run_id in zip(numbers, (marked, working), strict=True):
            wait_until((ground.folder / f"Waits-{number}").exists, 2 * SECONDS)
            listener.wait_for(run_id, "task.started")
        with watching(tmp_path, "--reconcile-every", "2s", **variables_of(ground, tmp_path)) as watch:
            wait_until(lambda: judged_until(watch) is not None, SECONDS, every=0.5)
            airflow.mark_run(WAITS, marked, "failed")
            # The callback of a run has a minute for its own report.
            listener.wait_for_end(marked)
            # Further rounds follow.
            later = datetime.now(UTC) + timedelta(seconds=10)
            wait_until(lambda: (judged_until(watch) or later) > later, SECONDS, every=0.5)
            connected, published = (watch.value(f"dkist_core_reconcile_{name}") for name in ("connected", "ends_total"))
            ends = [
                sum(isinstance(event, WorkflowEnd) for event in listener.of(run_id)) for run_id in (marked, working)
            ]
            assert watch.end() == 0
    finally:
        ground.release(numbers[1])
        airflow.wait_for_run(WAITS, working, "success", "failed", seconds=SECONDS)
    listener.wait_for_end(working)

    assert (connected, published) == (1.0, 1.0)
    assert ends == [1, 0]
    assert listener.view(marked).verdict is State.FAILED
    assert listener.view(marked).ended_at == datetime.fromisoformat(airflow.run_of(WAITS, marked)["end_date"])
    assert listener.view(working).verdict is State.FINISHED
