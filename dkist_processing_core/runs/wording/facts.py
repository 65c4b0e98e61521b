"""
A short text of an event's facts, apart from its identity and time.

Not here: colours and columns (cli.draw.lines, cli.draw.timeline).
"""

from collections.abc import Iterator

from dkist_processing_core.events import (
    Event,
    Resources,
    TaskDispatched,
    TaskEnd,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.runs import STATES_OF_ENGINE, State
from dkist_processing_core.runs.wording.last_place import last_place
from dkist_processing_core.text import amount, counted, duration, parts_of_attempt, size
from dkist_processing_core.text.terminal import one_line

_NAMED_TASKS = 3
_OF_ENGINE: dict[str, str] = {**STATES_OF_ENGINE, "no_status": State.NOT_RUN}


def named_recipe_run(recipe_run_id: int | None) -> str:
    """Return a text for a recipe run; a run without a usable recipe run id has no number."""
    return "no recipe run" if recipe_run_id is None else f"recipe run {recipe_run_id}"


def facts(event: Event) -> str:
    """Return an event's own facts as one line."""
    return ", ".join(one_line(fact) for fact in _facts(event) if fact)


def _facts(event: Event) -> list[str | None]:  # noqa: C901, PLR0911 - a table of the events, one line each
    match event:
        case WorkflowStarted():
            tasks = counted(len(event.graph.nodes), "task") if event.graph else None
            return [tasks, named_recipe_run(event.recipe_run_id)]
        case WorkflowFinished():
            return [_took(event.duration_seconds), _states(event)]
        case WorkflowFailed():
            return [_took(event.duration_seconds), _states(event), _failed_tasks(event), event.reason]
        case TaskDispatched():
            waited = None if event.queued_seconds is None else f"queued {duration(event.queued_seconds)}"
            return [event.worker and f"to {event.worker}", event.queue and f"queue {event.queue}", waited]
        case TaskStarted():
            return [event.host and f"on {event.host}", f"pid {event.pid}" if event.pid else None, _environment(event)]
        case TaskProgressed():
            return [amount(event.done, event.total, one_line(event.unit or "")), event.note]
        case TaskSampled():
            return [*_used(event.resources), event.top_frame and f"in {event.top_frame}"]
        case TaskOverdue() | WorkflowOverdue():
            return [_overdue(event)]
        case TaskFailed():
            follows = "another attempt follows" if event.final is False else None
            parts = parts_of_attempt(event.phases)
            return [_took(event.duration_seconds), parts, failure(event), _place(event), follows]
        case TaskEnd():
            return [_took(event.duration_seconds), parts_of_attempt(event.phases), end_detail(event)]
    return []


def end_detail(event: TaskEnd) -> str:
    """Return cause, reason or measurements of an end, as short text."""
    match event:
        case TaskFailed():
            return failure(event)
        case TaskSkipped():
            return one_line(event.reason or "")
        case TaskFinished():
            return ", ".join(_measurements(event))
    return ""


def _measurements(event: TaskFinished) -> Iterator[str]:
    if event.peak_memory is not None:
        yield f"peak {size(event.peak_memory)}"


def _used(resources: Resources | None) -> Iterator[str]:
    """Yield what the processes of an attempt use at this moment."""
    if resources is None:
        return
    if resources.rss is not None:
        yield size(resources.rss)
    if resources.cpu_user_seconds is not None and resources.cpu_system_seconds is not None:
        yield f"CPU {duration(resources.cpu_user_seconds + resources.cpu_system_seconds)}"
    if resources.processes is not None and resources.processes > 1:
        yield counted(resources.processes, "process", "processes")


def measured(end: TaskEnd | None) -> tuple[str, str]:
    """Return the processor time and the largest memory of an attempt, each "" if it was not measured."""
    cpu, peak = (None, None) if end is None else (end.cpu_seconds, end.peak_memory)
    return "" if cpu is None else duration(cpu), "" if peak is None else size(peak)


def failure(event: TaskFailed) -> str:
    """Return why an attempt failed: cause, phase, error and the first line of the error's message."""
    return one_line(event.summary)


def _place(event: TaskFailed) -> str | None:
    place = last_place(event)
    return None if place is None else place.text


def _overdue(event: TaskOverdue | WorkflowOverdue) -> str:
    return f"withdrawn: {event.summary}" if event.withdrawn else event.summary


def _took(seconds: float | None) -> str | None:
    return None if seconds is None else f"took {duration(seconds)}"


def _environment(event: TaskStarted) -> str | None:
    if event.environment is None:
        return None
    took = "" if event.environment_seconds is None else f" in {duration(event.environment_seconds)}"
    return f"environment {event.environment}{took}"


def _states(event: WorkflowFinished | WorkflowFailed) -> str:
    """Return the number of tasks in each state, in the words of a timeline; a state of a newer engine as it is."""
    states = [_OF_ENGINE.get(state, state) for state in event.tasks.values()]
    distinct = dict.fromkeys(states)
    counts = ", ".join(f"{states.count(state)} {state}" for state in distinct)
    if len(distinct) > 1:
        return f"{counted(len(states), 'task')}: {counts}"
    return " ".join([counted(len(states), "task"), *distinct]) if states else ""


def _failed_tasks(event: WorkflowFailed) -> str | None:
    names = [name for name, state in event.tasks.items() if state == "failed"]
    more = len(names) - _NAMED_TASKS
    return f"failed: {' '.join(names[:_NAMED_TASKS])}{f' and {more} more' if more > 0 else ''}" if names else None
