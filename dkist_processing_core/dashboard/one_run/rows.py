"""
The attempts of a run as rows: the facts of each, and its place on the axis of time.

Not here: the geometry (drawing.timeline), and one attempt with all that is known about it (pages.attempt).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from dkist_processing_core.dashboard.analysis.nodes import tasks_by_node
from dkist_processing_core.dashboard.drawing.timeline import Lane, Timeline
from dkist_processing_core.events import TaskFailed, TaskSkipped
from dkist_processing_core.identity import class_name_of
from dkist_processing_core.runs import AttemptView, RunView, State, TaskView
from dkist_processing_core.runs.moments import Moments, Part
from dkist_processing_core.runs.wording.facts import end_detail
from dkist_processing_core.runs.wording.overdue import StandingAlarm, standing_alarm

_WORDS_OF_ENGINE = {
    "upstream_failed": "an upstream task failed",
    "no_status": "the run ended before",
}


@dataclass(frozen=True, slots=True)
class Row:
    """An attempt of a task, or a task without one."""

    task: TaskView
    attempt: AttemptView | None
    is_first: bool
    """Whether it is the first row of its task."""
    is_retried: bool
    """Whether the attempt failed, and another one followed."""
    is_critical: bool

    @property
    def state(self) -> State:
        """The state of the attempt, or of the task without one."""
        return self.task.state if self.attempt is None else self.attempt.state


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row with its facts."""

    row: Row
    address: str | None
    lane: Lane | None
    waited: float | None
    """The time that it waited for a free worker, in seconds; None if that is not known, and for a retry."""
    prepared: float | None
    """The time that its environment took, in seconds."""
    phases: Mapping[str, float]
    took: float | None
    memory: int | None
    """The largest memory in bytes that is known, or that of now."""
    host: str | None
    text: str
    """Why it failed, was skipped, or has not run; "" if there is no reason."""
    alarm: StandingAlarm | None
    disputes: Sequence[str]
    """What other reporters state against its outcome."""


def rows_of(tasks: Sequence[TaskView], critical: Collection[str], first: int, count: int) -> list[Row]:
    """
    Return some of the rows of tasks, those of each task together.

    Args:
        tasks: The tasks.
        critical: The names of the tasks on the critical path.
        first: The place of the first row among all, from 0.
        count: The largest number of rows.
    """
    attempts = ((task, attempt) for task in tasks for attempt in task.attempts or (None,))
    return [
        Row(
            task=task,
            attempt=attempt,
            is_first=attempt is None or attempt is task.attempts[0],
            is_retried=attempt is not None and attempt.state is State.FAILED and attempt is not task.attempts[-1],
            is_critical=task.name in critical,
        )
        for task, attempt in islice(attempts, first, first + count)
    ]


def tasks_of(view: RunView, task_name: str | None) -> list[TaskView]:
    """Return the tasks of a run, those of each node together; of a name, the task and its instances if it is mapped."""
    tasks = tasks_by_node(view).tasks
    if task_name is None:
        return tasks
    return [task for task in tasks if task_name in (task.name, class_name_of(task.name))]


def drawn(
    row: Row,
    *,
    moments: Moments,
    timeline: Timeline,
    hosts: Mapping[tuple[str, int | None], str],
    address_of: Callable[[str, int | None], str],
    now: datetime,
) -> DrawnRow:
    """
    Return a row with its facts, and its place on the timeline of the run.

    Args:
        row: The row.
        moments: The times of the run.
        timeline: The timeline of the run.
        hosts: The hosts of the attempts.
        address_of: Returns the address of an attempt of a task.
        now: The time until which an attempt without an end lasts.
    """
    task, attempt = row.task, row.attempt
    if attempt is None:
        text = _WORDS_OF_ENGINE.get(task.engine_state or "", "")
        return DrawnRow(row, None, None, None, None, {}, None, None, None, text, None, ())
    seconds = {each.part: (each.end - each.begin).total_seconds() for each in moments.stretches(task, attempt)}
    return DrawnRow(
        row,
        address_of(task.name, attempt.number),
        timeline.lane(task, attempt),
        seconds.get(Part.WAITING),
        seconds.get(Part.PREPARING) if attempt.preparation_seconds is None else attempt.preparation_seconds,
        {} if attempt.end is None else attempt.end.phases,
        moments.duration(attempt),
        _memory(attempt),
        hosts.get((task.name, attempt.number)),
        text_of(attempt),
        None if attempt.overdue is None else standing_alarm(attempt.overdue, now),
        list(disputes_of(task, attempt)),
    )


def _memory(attempt: AttemptView) -> int | None:
    if attempt.end is not None:
        return attempt.end.peak_memory
    resources = None if attempt.sample is None else attempt.sample.resources
    return None if resources is None else resources.rss


def text_of(attempt: AttemptView) -> str:
    """Return why an attempt failed or was skipped; "" for any other one."""
    end = attempt.end
    if end is None:
        return f"{attempt.cause}: its end was not reported" if attempt.state is State.FAILED else ""
    if isinstance(end, TaskFailed | TaskSkipped):
        return f"{end_detail(end)} (reported only by the engine)" if end.provisional else end_detail(end)
    return ""


def disputes_of(task: TaskView, attempt: AttemptView) -> Iterator[str]:
    """Yield what reporters state against the outcome of an attempt."""
    for other in attempt.contradictions:
        detail = end_detail(other)
        yield f"the {other.reported_by} reports: {other.name.partition('.')[2]}{f': {detail}' if detail else ''}"
    if attempt is task.attempts[-1] and task.disputed_state is not None:
        yield f"the engine reports it as {task.disputed_state}"
