"""
The runs of a workflow by version: how many there were, how long they took, and how many failed.

Pure functions of the runs. Not here: which versions changed something (regressions), and drawing them (drawing).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.collect.questions.overview import RunDuration, TaskFigures
from dkist_processing_core.dashboard.analysis.regressions import PastRun
from dkist_processing_core.runs import State


@dataclass(frozen=True, slots=True)
class Version:
    """The runs of one version, of those that were read."""

    name: str
    first_at: datetime | None
    """When the first of them began."""
    runs: int
    running: int
    failed: int
    durations: tuple[float, ...]
    """Of the runs that finished, in seconds, in the order in which they began."""

    @property
    def finished(self) -> int:
        """The number of runs that finished."""
        return self.runs - self.running - self.failed

    @property
    def failure_rate(self) -> float | None:
        """The share of failed runs of those that ended, from 0 to 1; None if none has ended."""
        return self.failed / (self.runs - self.running) if self.runs > self.running else None

    @property
    def median(self) -> float | None:
        """The median of the durations; None if there is none."""
        return statistics.median(self.durations) if self.durations else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The durations that a quarter and three quarters of the runs do not exceed; None without two durations."""
        if len(self.durations) < 2:  # noqa: PLR2004 - one has no spread
            return None
        low, _, high = statistics.quantiles(self.durations, n=4, method="inclusive")
        return low, high


def in_order(runs: Sequence[RunDuration]) -> list[RunDuration]:
    """Return the runs with a known beginning in the order in which they began."""
    known = [run for run in runs if run.began_at is not None]
    return sorted(known, key=lambda run: (run.began_at, run.run.workflow_version, run.run.run_id))


def past_runs(runs: Sequence[RunDuration]) -> list[PastRun]:
    """Return the runs that have ended, as the regressions are judged by them, in the order given."""
    return [
        PastRun(run.run.workflow_version, run.state is State.FAILED, run.seconds)
        for run in runs
        if run.state in (State.FINISHED, State.FAILED)
    ]


def versions_of(runs: Sequence[RunDuration]) -> list[Version]:
    """Return the versions of runs in the order given, the one whose first run began first."""
    found: dict[str, list[RunDuration]] = {}
    for run in runs:
        found.setdefault(run.run.workflow_version, []).append(run)
    return [
        Version(
            name,
            of_version[0].began_at,
            len(of_version),
            sum(not run.state.is_end for run in of_version),
            sum(run.state is State.FAILED for run in of_version),
            tuple(run.seconds for run in of_version if run.state is State.FINISHED and run.seconds is not None),
        )
        for name, of_version in found.items()
    ]


@dataclass(frozen=True, slots=True)
class TaskOverVersions:
    """A task in the latest version that ran it, with the version before."""

    name: str
    latest: TaskFigures
    before: TaskFigures | None
    attempts: int
    failed: int
    """Of all versions that were read."""

    @property
    def failure_rate(self) -> float:
        """The share of attempts that failed, from 0 to 1."""
        return self.failed / self.attempts if self.attempts else 0.0

    @property
    def change_seconds(self) -> float | None:
        """By how much its median duration is longer than in the version before; None if that is not known."""
        if self.before is None or self.before.durations is None or self.latest.durations is None:
            return None
        return self.latest.durations.median - self.before.durations.median


def tasks_of(figures: Sequence[TaskFigures], versions: Sequence[str]) -> list[TaskOverVersions]:
    """Return each task over the versions, which are in the order of their first runs."""
    places = {version: place for place, version in enumerate(versions)}
    found: dict[str, list[TaskFigures]] = {}
    for figure in figures:
        found.setdefault(figure.task_name, []).append(figure)
    tasks = []
    for name, of_task in found.items():
        ordered = sorted(of_task, key=lambda figure: places.get(figure.version, -1))
        before = ordered[-2] if len(ordered) > 1 else None
        attempts, failed = sum(each.attempts for each in ordered), sum(each.failed for each in ordered)
        tasks.append(TaskOverVersions(name, ordered[-1], before, attempts, failed))
    return tasks
