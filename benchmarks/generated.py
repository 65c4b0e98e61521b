"""
The events of many runs as a site has them: several workflows and versions, retries, failures of a few families with
stacks, profiles, samples and progress. The same seed gives the same events.

They are made by the sample runs of dkist_processing_core.testing, which know who reports what on which attempt. Not
here: storing them (dashboard).
"""

import heapq
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dkist_processing_core.events import (
    Event,
    Graph,
    Reporter,
    Resources,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSampled,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.testing import SampleRun

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
WORKFLOWS = ("l0_to_l1_visp", "l0_to_l1_vbi", "l0_to_l1_cryonirsp_sp", "l0_to_l1_dlnirsp", "l1_to_l2_assembly")
_VERSIONS = ("2.16.3", "2.17.0", "2.17.1")
_TASKS = tuple(
    f"{verb}{what}"
    for verb, what in zip(
        ("Parse", "Dark", "LampGain", "Geometric", "SolarGain", "InstrumentPolarization", "Science", "Quality") * 7,
        ("L0InputData", "Calibration", "Metrics", "Movie", "Assembly", "Transfer", "Report") * 8,
        strict=True,
    )
)
_STACK = 'File "/opt/env/lib/python3.13/site-packages/visp/gain.py", line {line}, in run\n    self.fit(frame_{frame})\n'
_FAMILIES = 12
_PROFILE_POINTS = 24
_MOST_ATTEMPTS = 3
# The share of attempts that fail, and of failures after which there is no further attempt.
_FAIL, _GIVE_UP = 0.03, 0.3


class Generated(NamedTuple):
    """The size of what is generated."""

    runs: int
    tasks: tuple[int, int] = (6, 14)
    """The fewest and the most tasks of a workflow's run; up to 50."""
    between: float = 60.0
    """The mean time between the starts of two runs, in seconds."""
    seed: int = 1
    begin: datetime = BEGIN


def stream(what: Generated) -> Iterator[Event]:
    """Yield the events of all runs in the order of their times, as a bus has them."""
    chance = random.Random(what.seed)
    waiting: list[tuple[float, int, Event]] = []
    began, place = what.begin.timestamp(), 0
    for number in range(what.runs):
        began += chance.expovariate(1 / what.between)
        while waiting and waiting[0][0] < began:
            yield heapq.heappop(waiting)[-1]
        for event in run_events(number, datetime.fromtimestamp(began, UTC), what):
            place += 1
            heapq.heappush(waiting, (event.time.timestamp(), place, event))
    while waiting:
        yield heapq.heappop(waiting)[-1]


def run_events(number: int, began: datetime, what: Generated) -> list[Event]:
    """Return the events of one run, which depend on its number and the seed."""
    return _Run(number, began, what).events()


class _Run:
    def __init__(self, number: int, began: datetime, what: Generated) -> None:
        self._chance = random.Random(what.seed << 32 | number)
        workflow = self._chance.choice(WORKFLOWS)
        self._began = began
        version = self._chance.choice(_VERSIONS)
        self._run = SampleRun(
            workflow,
            workflow_version=version,
            tasks=_TASKS[: self._chance.randint(*what.tasks)],
            recipe_run_id=1000 + number % 5000,
            run_id=f"scheduled__{began.isoformat()}",
            max_attempts=_MOST_ATTEMPTS,
        )

    def events(self) -> list[Event]:
        names = self._run.tasks
        graph = Graph(nodes=names, edges=self._run.edges)
        self._add(WorkflowStarted, None, 0.0, "engine", started_at=self._began, graph=graph)
        at, states = 1.0, dict.fromkeys(names, "upstream_failed")
        for name in names:
            at, has_succeeded = self._task(name, at)
            states[name] = "success" if has_succeeded else "failed"
            if not has_succeeded:
                break
        has_finished = set(states.values()) == {"success"}
        end: dict[str, Any] = {"ended_at": self._at(at), "duration_seconds": at, "tasks": states}
        if has_finished:
            self._add(WorkflowFinished, None, at, "engine", **end)
        else:
            self._add(WorkflowFailed, None, at, "engine", reason="task_failure", **end)
        return self._run.events

    def _at(self, seconds: float) -> datetime:
        return self._began + timedelta(seconds=seconds)

    def _add(self, kind: type[Event], task: str | None, at: float, reporter: str, **facts: Any) -> None:
        self._run.report(kind, task, time=self._at(at), reported_by=Reporter(reporter), **facts)

    def _task(self, name: str, at: float) -> tuple[float, bool]:
        """Add the events of a task, and return when it ended, and whether with success."""
        for _ in range(_MOST_ATTEMPTS):
            at, has_succeeded = self._attempt(name, self._run.next_attempt(name), at)
            if has_succeeded:
                return at, True
            if self._chance.random() < _GIVE_UP:
                return at, False
        return at, False

    def _attempt(self, name: str, attempt: int, at: float) -> tuple[float, bool]:
        chance = self._chance
        queued, environment, seconds = chance.expovariate(1 / 4), chance.uniform(0.2, 2), chance.lognormvariate(4, 0.6)
        worker = f"worker-{chance.randint(1, 40)}"
        self._add(TaskDispatched, name, at + queued, "engine", queue="default", worker=worker, queued_seconds=queued)
        at += queued + environment
        began = {"host": worker, "pid": chance.randint(1000, 60000), "environment": "reused", "sample_seconds": 30.0}
        self._add(TaskStarted, name, at, "launcher", environment_seconds=environment, **began)
        resources = self._resources(seconds)
        total = chance.randint(10, 900)
        progress: dict[str, Any] = {"done": total // 2, "total": total, "unit": "frame"}
        self._add(TaskProgressed, name, at + seconds / 2, "task", sequence=5, **progress)
        sample: dict[str, Any] = {"host": worker, "interval_seconds": 30.0, "resources": resources}
        self._add(TaskSampled, name, at + seconds * 0.8, "launcher", sequence=1, **sample)
        at += seconds
        took: dict[str, Any] = {
            "duration_seconds": seconds,
            "phases": {"pre_run": 0.125, "run": seconds - 0.5, "post_run": 0.25},
            "resources": resources,
            "profile": self._profile(seconds),
        }
        if chance.random() >= _FAIL:
            self._add(TaskFinished, name, at, "task", **took)
            return at, True
        family = chance.randrange(_FAMILIES)
        stack = "".join(_STACK.format(line=line + family, frame=chance.randrange(999)) for line in range(12))
        failure: dict[str, Any] = {
            "cause": "exception",
            "phase": "run",
            "error_type": "dkist_processing_visp.errors.FitError",
            "message": f"no solution for frame {chance.randrange(10_000)}",
            "fingerprint": f"5f0ac1d2e3b4{family:04x}",
        }
        self._add(TaskFailed, name, at, "task", stack=stack, final=attempt == _MOST_ATTEMPTS, **failure, **took)
        return at, False

    def _resources(self, seconds: float) -> Resources:
        chance = self._chance
        return Resources(
            cpu_user_seconds=round(seconds * 0.9, 2),
            cpu_system_seconds=round(seconds * 0.05, 2),
            peak_rss=chance.randrange(10**8, 10**10),
            rchar=chance.randrange(10**9),
            wchar=chance.randrange(10**8),
            read_bytes=chance.randrange(10**9),
            write_bytes=chance.randrange(10**8),
            processes=2,
            threads=5,
            open_files=16,
            memory_limit_bytes=16_000_000_000,
            cpu_limit=4.0,
        )

    def _profile(self, seconds: float) -> tuple[tuple[float, int, float, float, float], ...]:
        chance = self._chance
        return tuple(
            (
                round(seconds * (point + 1) / _PROFILE_POINTS, 1),
                chance.randrange(10**8, 10**10),
                round(chance.uniform(0, 4), 2),
                float(chance.randrange(10**8)),
                float(chance.randrange(10**7)),
            )
            for point in range(_PROFILE_POINTS)
        )
