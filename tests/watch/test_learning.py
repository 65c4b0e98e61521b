"""
Learnt limits: hangs in recorded runs of the example are found, and nothing else is reported.

The record has forty real runs, made by `python -m tests.watch` on a busy machine. The runs of the test are drawn from
it, each as a whole: such a machine makes all tasks of a run slower. From the first twenty, in which nothing hangs, the
limits are learnt.
"""

from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest

from dkist_processing_core.events import (
    Event,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskStarted,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.watch.limits import FEWEST, LATEST, SHORTEST_LIMIT_SECONDS, learnt_limit
from dkist_processing_core.watch.listening import Listening
from dkist_processing_core.watch.overdue import OverdueReports
from tests.facts import make
from tests.watch.kept import KeptInMemory, RecordingPublisher
from tests.watch.recorded import TASKS, recorded_runs
from tests.watch.world import BEGIN, moment

RUNS = 200
HANGS = 0.05
_FOUND_WITHIN = 1.2


class Bench:
    """
    A store, a watcher that listens all the time, and runs of the example one after the other.
    """

    def __init__(self, seed: int, slower: float) -> None:
        """
        Start without runs; `slower` is by how much all tasks take longer than in the record.
        """
        self._kept = KeptInMemory(idle_after=1e9)
        self._published = RecordingPublisher()
        self._reports = OverdueReports(cast("Any", self._published))
        self._durations: dict[str, list[float]] = {task: [] for task in TASKS}
        self.reported: list[str] = []
        self.hung: list[str] = []
        self.delays: list[float] = []
        """For how long each attempt had hung when it was reported, as multiples of the limit."""
        self.limits: list[float] = []
        """The limit of each attempt that hung, as multiples of the longest recorded duration."""
        self._random = Random(seed)
        self._slower = slower
        self._record = recorded_runs()
        self._time = 0.0

    def run(self, number: int) -> None:
        """
        Run the example once. After the first runs, one attempt in twenty hangs until it is reported.
        """
        run = f"scheduled__{number}"
        self._report(WorkflowStarted, run, started_at=moment(self._time))
        for task, seconds in self._random.choice(self._record).items():
            is_second = number >= FEWEST and self._random.random() < HANGS
            if is_second:
                self._hang(run, task)
            self._start(run, task, 1 + is_second)
            self._look_after(0.999 * self._slower * seconds)
            self._end(TaskFinished, run, task, 1 + is_second, duration_seconds=self._slower * seconds)
            self._durations[task].append(self._slower * seconds)
        self._report(WorkflowFinished, run, ended_at=moment(self._time), tasks=dict.fromkeys(TASKS, "success"))

    def _hang(self, run: str, task: str) -> None:
        longest = self._slower * max(each[task] for each in self._record)
        began_at = self._time
        self._start(run, task, 1)
        self.hung.append(f"{run}/{task}/1")
        found: list[TaskOverdue] = []
        while not found and self._time - began_at < 20 * longest + SHORTEST_LIMIT_SECONDS:
            found = self._look_after(0.05 * max(longest, SHORTEST_LIMIT_SECONDS))
        self.delays += [(self._time - began_at) / each.limit_seconds for each in found]
        self.limits += [each.limit_seconds / longest for each in found]
        self._end(TaskFailed, run, task, 1, cause="terminated", final=False)

    def _start(self, run: str, task: str, attempt: int) -> None:
        self._report(TaskStarted, run, task, attempt=attempt, max_attempts=2, reported_by="launcher")

    def _end(self, event_class: type[Event], run: str, task: str, attempt: int, **facts: Any) -> None:
        self._report(event_class, run, task, attempt=attempt, max_attempts=2, reported_by="launcher", **facts)

    def _report(self, event_class: type[Event], run: str, task: str | None = None, **facts: Any) -> None:
        """
        Report an event, which the store receives at once.
        """
        event = make(event_class, task, **{"time": moment(self._time), "run_id": run, "reported_by": "engine"} | facts)
        self._kept.add(event, BEGIN + self._time)

    def _look_after(self, seconds: float) -> list[TaskOverdue]:
        """
        Let the watcher listen for a time and then look, and return what it reports.
        """
        self._time += seconds
        now = BEGIN + self._time
        self._kept.fold(now)
        limits = {task: learnt_limit(durations[-LATEST:]) for task, durations in self._durations.items()}
        learnt = {("W", task): limit for task, limit in limits.items() if limit is not None}
        facts = replace(self._kept.facts(), listening=Listening([(BEGIN, now)]), learnt=learnt)
        self._reports.publish(facts, now)
        found = [each for each in self._published.take() if isinstance(each, TaskOverdue)]
        for each in found:
            self._kept.add(each, now)
        self.reported += [each.subject for each in found]
        return found


@pytest.mark.parametrize(("slower", "seed"), [(1.0, 1), (600.0, 2)], ids=["as recorded", "with minutes for seconds"])
def test_hangs_in_recorded_runs_are_found_and_nothing_else(slower: float, seed: int) -> None:
    """Recall 1.0 and no false alarm: 200 runs with hangs in one of twenty attempts, after 20 runs without."""
    bench = Bench(seed, slower)

    for number in range(FEWEST + RUNS):
        bench.run(number)

    assert 0.03 * RUNS * len(TASKS) < len(bench.hung) < 0.07 * RUNS * len(TASKS)
    assert bench.reported == bench.hung
    assert max(bench.delays) <= _FOUND_WITHIN
    assert slower == 1.0 or 1.0 < max(bench.limits) < 12.0
