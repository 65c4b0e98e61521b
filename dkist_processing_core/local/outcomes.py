"""
The outcome of a run on this host: the state of each task, in Airflow's terms.

Not here: the state of a run from the events on the bus (runs).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class TaskState(StrEnum):
    """The state of a task after a run, in Airflow's terms."""

    SUCCESS = "success"
    """The task finished."""
    FAILED = "failed"
    """The last attempt of the task failed."""
    UPSTREAM_FAILED = "upstream_failed"
    """The task was not run, because a task that it depends on failed."""
    NO_STATUS = "no_status"
    """The task was not run, because the run ended before."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """
    The outcome of a task.

    Attributes:
        state: The state of the task after the run.
        attempts: The number of its attempts; 0 for a task that was not run.
        duration_seconds: The total duration of these attempts, in seconds, each as in its end event.
    """

    state: TaskState
    attempts: int = 0
    duration_seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the task finished."""
        return self.state is TaskState.SUCCESS


@dataclass(frozen=True)
class RunResult(Mapping[str, TaskOutcome]):
    """
    The result of a run on this host: a mapping from the name of each task to its outcome.

    Its truth value is the success of the run, so `sys.exit(not workflow.run(1))` ends a script with status 0 after a
    success, and with 1 after a failure.

    Attributes:
        run_id: The id of the run, as the events of the run and `dkist-core timeline` name it.
        tasks: The outcome of each task by its name, in dependency order.
    """

    run_id: str
    tasks: dict[str, TaskOutcome]

    def __bool__(self) -> bool:
        """Return True if every task finished."""
        return self.succeeded

    @property
    def succeeded(self) -> bool:
        """Whether every task finished."""
        return all(outcome.succeeded for outcome in self.tasks.values())

    @property
    def summary(self) -> str:
        """A sentence about the result, with the short id of the run and the names of the tasks that failed."""
        # The id of a local run ends with its short id, which was drawn at random.
        short_id = self.run_id.rpartition("__")[2]
        if self.succeeded:
            return f"run {short_id} finished"
        failed = [
            f"{name} failed" + (f" after {outcome.attempts} attempts" if outcome.attempts > 1 else "")
            for name, outcome in self.tasks.items()
            if outcome.state is TaskState.FAILED
        ]
        not_run = sum(outcome.attempts == 0 for outcome in self.tasks.values())
        rest = [f"{not_run} {'task was' if not_run == 1 else 'tasks were'} not run"] if not_run else []
        return f"run {short_id} failed: {', '.join(failed + rest)}"

    def __getitem__(self, name: str) -> TaskOutcome:
        """Return a task's outcome."""
        return self.tasks[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the tasks."""
        return iter(self.tasks)

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)
