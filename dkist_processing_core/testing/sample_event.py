"""
Single events for tests: complete and realistic, with the facts that a test states.

Not here: the events of a whole run, which fit together (sample_run).
"""

from typing import Any, TypeVar

from dkist_processing_core.events import (
    Cause,
    Event,
    Reporter,
    TaskEvent,
    TaskFailed,
    TaskProgressed,
    TaskSampled,
    describe,
)
from dkist_processing_core.testing.fixed import START

_EventT = TypeVar("_EventT", bound=Event)
_RUN = {
    "workflow_name": "l0_to_l1_visp",
    "workflow_version": "2.16.3",
    "run_id": "manual__2026-11-22T09:00:00+00:00",
    "recipe_run_id": 1234,
}
_ATTEMPT = {"task_name": "ParseL0", "attempt": 1, "max_attempts": 1}
EXCEPTION: dict[str, Any] = {"cause": Cause.EXCEPTION, "phase": "run", **describe(KeyError("missing"))}
"""The facts of a failure by an exception, as a task reports them."""


def sample_event(event_class: type[_EventT], task_name: str | None = None, /, **facts: Any) -> _EventT:
    """
    Return an event of a class, about the first attempt of a task in a run; each fact that is given replaces its own.

    >>> from dkist_processing_core.events import TaskFailed
    >>> sample_event(TaskFailed, "ParseL0", workflow_name="l0_to_l1_visp").summary
    "exception in run: KeyError: 'missing'"

    Args:
        event_class: A class of `dkist_processing_core.events`.
        task_name: The name of the task, for an event of a task.
        facts: Fields of the event.

    Raises:
        EventError: A fact does not fit its field.
    """
    is_task = issubclass(event_class, TaskEvent)
    given: dict[str, Any] = {"time": START, "reported_by": Reporter.TASK if is_task else Reporter.ENGINE, **_RUN}
    if is_task:
        given |= _ATTEMPT if task_name is None else _ATTEMPT | {"task_name": task_name}
    if issubclass(event_class, TaskProgressed):
        given |= {"sequence": 0, "done": 1, "total": 4, "unit": "frame"}
    if issubclass(event_class, TaskSampled):
        given |= {"reported_by": Reporter.LAUNCHER, "sequence": 0}
    if issubclass(event_class, TaskFailed):
        given |= {"final": True} | (EXCEPTION if facts.get("cause") is None else {})
    return event_class(**given | facts)
