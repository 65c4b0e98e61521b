"""
Events for tests: facts about one run, equal in each call.
"""

from datetime import UTC, datetime
from typing import Any, TypeVar

from dkist_processing_core.events import Event, TaskFailed, TaskFinished, TaskProgressed, TaskSampled, TaskStarted

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
_EventT = TypeVar("_EventT", bound=Event)


def make(event_class: type[_EventT], task_name: str | None = None, **facts: Any) -> _EventT:
    """
    Return an event of the run `r` of workflow W, version 1.
    """
    identity: dict[str, Any] = {
        "time": NOON,
        "reported_by": "task",
        "workflow_name": "W",
        "workflow_version": "1",
        "run_id": "r",
        "recipe_run_id": 1,
    }
    if task_name is not None:
        identity |= {"task_name": task_name, "attempt": 1, "max_attempts": 1}
    return event_class(**identity | facts)


def started(task_name: str, **facts: Any) -> TaskStarted:
    """
    Return the start of a task's first attempt.
    """
    return make(TaskStarted, task_name, **facts)


def progressed(task_name: str, sequence: int, **facts: Any) -> TaskProgressed:
    """
    Return a report of progress, whose sequence number is its completed amount.
    """
    return make(TaskProgressed, task_name, sequence=sequence, done=sequence, **facts)


def sampled(task_name: str, sequence: int, **facts: Any) -> TaskSampled:
    """
    Return a sample by the launcher of a task's first attempt.
    """
    return make(TaskSampled, task_name, **{"reported_by": "launcher", "sequence": sequence} | facts)


def finished(task_name: str, **facts: Any) -> TaskFinished:
    """
    Return the success of a task's first attempt.
    """
    return make(TaskFinished, task_name, **facts)


def failed(task_name: str, **facts: Any) -> TaskFailed:
    """
    Return the failure of a task's first attempt.
    """
    return make(TaskFailed, task_name, **{"cause": "exception", "final": True} | facts)
