"""
Reports of runs for tests of the store and its commands: with a retry, a failure, a skipped branch, a killed attempt,
and attempts that still run.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from dkist_processing_core.events import (
    Event,
    Graph,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowStarted,
)
from tests.facts import NOON, make

ENDED = "scheduled__2026-11-22T11:00:00+00:00"
RUNNING = "local__42__20261122T115000Z__8bf54b12"
_STACK = """\
Traceback (most recent call last):
  File "/site-packages/dkist_processing_visp/tasks/calibrate.py", line 88, in run
    self.find_limb(frame)
  File "/site-packages/dkist_processing_visp/tasks/calibrate.py", line 131, in find_limb
    raise LimbError(f"no limb in frame {frame.number}")
dkist_processing_visp.errors.LimbError: no limb in frame 3
"""
_LIMB: dict[str, Any] = {
    "cause": "exception",
    "phase": "run",
    "error_type": "dkist_processing_visp.errors.LimbError",
    "message": "no limb in frame 3",
    "stack": _STACK,
    "fingerprint": "5f0ac1d2e3b4a596",
}


def ended_run(run_id: str = ENDED, *, begin: datetime = NOON, version: str = "1.2.3") -> Iterator[Event]:
    """
    Yield the reports on a run that has failed: with a retry, a failure, a skipped branch and a killed attempt.
    """
    names = ("ParseL0", "Calibrate", "Polcal", "QualityMovie", "Transfer", "Notify")
    edges = (("ParseL0", "Calibrate"), ("ParseL0", "Polcal"), ("ParseL0", "QualityMovie"), ("Calibrate", "Transfer"))
    identity = {"workflow_name": "l0_to_l1_visp", "workflow_version": version, "run_id": run_id, "recipe_run_id": 7}

    def at(seconds: float) -> datetime:
        return begin + timedelta(seconds=seconds)

    def of(
        event_class: type[Event], task: str | None, seconds: float, reporter: str = "launcher", **facts: Any
    ) -> Event:
        return make(event_class, task, time=at(seconds), reported_by=reporter, **identity | facts)

    yield of(WorkflowStarted, None, 0, "engine", started_at=at(0), graph=Graph(nodes=names, edges=edges))
    yield of(TaskDispatched, "ParseL0", 1, worker="node7", queue="default")
    yield of(TaskStarted, "ParseL0", 2, host="node7", pid=100, environment="reused", environment_seconds=0.4)
    yield of(
        TaskFinished,
        "ParseL0",
        14,
        "task",
        duration_seconds=12.4,
        cpu_seconds=10.1,
        peak_memory_bytes=184_000_000,
        phases={"pre_run": 0.2, "run": 11.9},
    )
    for attempt, seconds in ((1, 16), (2, 46)):
        tried: dict[str, Any] = {"attempt": attempt, "max_attempts": 2}
        yield of(TaskStarted, "Calibrate", seconds, host="node7", pid=101, **tried)
        yield of(
            TaskFailed,
            "Calibrate",
            seconds + 21,
            "task",
            duration_seconds=21.0,
            cpu_seconds=19.0,
            peak_memory_bytes=2_640_000_000,
            final=attempt == 2,
            log_url=f"https://airflow.example/log?task=Calibrate&try={attempt}",
            **_LIMB,
            **tried,
        )
    yield of(TaskStarted, "Polcal", 16, host="node8", pid=102)
    yield of(TaskProgressed, "Polcal", 30, "task", sequence=4, done=9, total=20, unit="frame", note="dark current")
    yield of(
        TaskFailed,
        "Polcal",
        40,
        duration_seconds=24.0,
        peak_memory_bytes=61_000_000_000,
        cause="out_of_memory",
        signal="SIGKILL",
        exit_code=-9,
        final=True,
    )
    yield of(TaskSkipped, "QualityMovie", 17, "engine", provisional=True, reason="no movie was requested")
    yield of(
        WorkflowFailed,
        None,
        70,
        "engine",
        ended_at=at(70),
        duration_seconds=70.0,
        reason="2 of 6 tasks have failed",
        tasks={
            "ParseL0": "success",
            "Calibrate": "failed",
            "Polcal": "failed",
            "QualityMovie": "skipped",
            "Transfer": "upstream_failed",
            "Notify": "skipped",
        },
    )


def running_run(run_id: str = RUNNING, *, now: datetime = NOON) -> Iterator[Event]:
    """
    Yield the reports on a run that still runs: one attempt makes progress, one is silent, one prepares.
    """
    identity = {"workflow_name": "l1_to_l2_dlnirsp", "workflow_version": "dev", "run_id": run_id, "recipe_run_id": 42}

    def of(event_class: type[Event], task: str | None, ago: float, **facts: Any) -> Event:
        time = now - timedelta(seconds=ago)
        return make(event_class, task, time=time, reported_by="launcher", **identity | facts)

    names = ("Gather", "Invert", "Publish", "Summarize")
    yield of(WorkflowStarted, None, 8100, started_at=now - timedelta(seconds=8100), graph=Graph(nodes=names, edges=()))
    yield of(TaskStarted, "Gather", 8040, host="node1")
    yield of(TaskStarted, "Invert", 95, host="node2", attempt=2, max_attempts=3)
    yield of(
        TaskProgressed,
        "Invert",
        2,
        attempt=2,
        max_attempts=3,
        sequence=7,
        done=45,
        total=100,
        unit="profile",
        note="tile 3 of 8",
    )
    yield of(TaskDispatched, "Publish", 0.4, worker="node3")
