"""
What happens in a simulation, as values: the actions of a history, and their text in a failure.

Not here: their effects (world), and how a history is drawn and shortened (machine).
"""

from dataclasses import dataclass

from dkist_processing_core.events import Event, TaskEnd, TaskEvent


@dataclass(frozen=True, slots=True)
class Deliver:
    """A report reaches the bus: the one at a place among those that have not reached it, 0 for the oldest."""

    report: Event
    is_early: bool = False
    """Whether older reports have not reached the bus yet."""

    def __str__(self) -> str:
        """Return a line for a person."""
        return f"{line_of(self.report)}{', before older ones' if self.is_early else ''}"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A report reaches the bus once more."""

    report: Event

    def __str__(self) -> str:
        """Return a line for a person."""
        return f"{line_of(self.report)}, once more"


@dataclass(frozen=True, slots=True)
class Lose:
    """A report reaches the archive of the bus only: the queue of the consumer was full, and dropped it."""

    report: Event

    def __str__(self) -> str:
        """Return a line for a person."""
        return f"{line_of(self.report)}, which the consumer's queue drops"


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes, in which nothing reaches the bus."""

    seconds: float

    def __str__(self) -> str:
        """Return a line for a person."""
        return f"{self.seconds:g} s pass"


@dataclass(frozen=True, slots=True)
class Kill:
    """The process is killed after some further steps."""

    steps: int

    def __str__(self) -> str:
        """Return a line for a person."""
        return f"the process is to be killed after {self.steps} more steps"


@dataclass(frozen=True, slots=True)
class Refuse:
    """One of the next effects is refused by the outside world: 0 for the next one."""

    skipped: int

    def __str__(self) -> str:
        """Return a line for a person."""
        return "the next effect is refused" if not self.skipped else f"the effect after {self.skipped} more is refused"


Action = Deliver | Repeat | Lose | Wait | Kill | Refuse


def line_of(report: Event) -> str:
    """Return a report in one line: `task.failed Calibrate 1 by the engine, provisional`."""
    what = report.name
    if isinstance(report, TaskEvent):
        what += f" {report.task_name} {'without an attempt' if report.attempt is None else report.attempt}"
    if isinstance(report, TaskEnd) and report.provisional:
        what += ", provisional"
    return f"{what} of {report.workflow_name} by the {report.reported_by}"
