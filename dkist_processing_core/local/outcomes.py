"""
The outcome of a run on this host: the state of each task, in Airflow's terms.

Not here: the state of a run from the events on the bus (runs).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dkist_processing_core.identity import Attempt


class TaskState(StrEnum):
    """The state of a task after a run, in Airflow's terms."""

    SUCCESS = "success"
    FAILED = "failed"
    UPSTREAM_FAILED = "upstream_failed"
    NO_STATUS = "no_status"


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The end of an attempt's process."""

    attempt: Attempt
    exit_code: int | None
    """The exit status of its process; None if it is lost."""
    duration_seconds: float
    is_reported: bool
    """Whether the launcher has reported its end."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The outcome of a task: its state, the number of its attempts, and their total duration in seconds."""

    state: TaskState
    attempts: int = 0
    duration_seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the task finished."""
        return self.state is TaskState.SUCCESS


@dataclass(frozen=True)
class RunResult(Mapping[str, TaskOutcome]):
    """The outcome of each task of a run, by the task's name."""

    run_id: str
    tasks: dict[str, TaskOutcome]

    @property
    def succeeded(self) -> bool:
        """Whether every task finished."""
        return all(outcome.succeeded for outcome in self.tasks.values())

    def __getitem__(self, name: str) -> TaskOutcome:
        """Return a task's outcome."""
        return self.tasks[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the tasks."""
        return iter(self.tasks)

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)
