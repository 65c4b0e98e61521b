"""
What happens in a simulation, as values: the actions of a history, and their text in a failure.

Not here: their effects (world), and how a history is drawn and shortened (machine, shortening).
"""

from dataclasses import dataclass

from dkist_processing_core.events import Event, TaskEnd, TaskEvent


@dataclass(frozen=True, slots=True)
class Deliver:
    """A report reaches the bus."""

    report: Event
    is_early: bool = False
    """Whether older reports have not reached the bus yet."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A report reaches the bus once more."""

    report: Event


@dataclass(frozen=True, slots=True)
class Lose:
    """A report reaches the archive of the bus only: the queue of the consumer was full, and dropped it."""

    report: Event


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes, in which nothing reaches the bus."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Kill:
    """The process is killed after some further steps; with a place, those at this place alone count."""

    steps: int
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The process is stopped before some of the next actions, and starts again after them."""

    actions: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """One of the next effects is refused by the outside world: 0 for the next one."""

    skipped: int


@dataclass(frozen=True, slots=True)
class Outage:
    """The database of the inbox refuses some statements and commits, after some further ones."""

    skipped: int
    refused: int


@dataclass(frozen=True, slots=True)
class Join:
    """A second process of the consumer starts, beside the first one."""


Action = Deliver | Repeat | Lose | Wait | Kill | Stop | Refuse | Outage | Join


def line_of(action: Action) -> str:  # noqa: C901 - one case per action
    """Return an action in one line, for a person."""
    match action:
        case Deliver(report, is_early):
            line = f"{_of_report(report)}{', before older ones' if is_early else ''}"
        case Repeat(report):
            line = f"{_of_report(report)}, once more"
        case Lose(report):
            line = f"{_of_report(report)}, which the consumer's queue drops"
        case Wait(seconds):
            line = f"{seconds:g} s pass"
        case Kill(steps, None):
            line = f"the process is to be killed after {steps} more steps"
        case Kill(steps, place):
            line = f"the process is to be killed after: {place}{'' if steps == 1 else f', occurrence {steps}'}"
        case Stop():
            line = "the process is stopped"
        case Refuse(0):
            line = "the next effect is refused"
        case Refuse(skipped):
            line = f"the effect after {skipped} more is refused"
        case Outage(skipped, refused):
            line = f"the inbox's database refuses {refused} statements after {skipped} more"
        case Join():
            line = "a second process of the consumer starts"
    return line


def _of_report(report: Event) -> str:
    """Return a report in one line: `task.failed l0_to_l1_visp/ParseL0 attempt 1 by the engine, provisional`."""
    subject = report.workflow_name
    if isinstance(report, TaskEvent):
        attempt = "without an attempt" if report.attempt is None else f"attempt {report.attempt}"
        subject = f"{subject}/{report.task_name} {attempt}"
    provisional = ", provisional" if isinstance(report, TaskEnd) and report.provisional else ""
    return f"{report.name} {subject} by the {report.reported_by}{provisional}"
