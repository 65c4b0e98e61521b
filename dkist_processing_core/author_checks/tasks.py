"""
The tasks that an author may add to a workflow, with their upstreams, queue and extras.

Not here: the relations between the tasks of one workflow (placement).
"""

import inspect
from collections.abc import Iterable
from typing import Any

from dkist_processing_core.attempt.coroutine_check import kind_of_result
from dkist_processing_core.attempt.overdue import is_limit
from dkist_processing_core.author_checks.names import MAX_NAME_LENGTH, name_of
from dkist_processing_core.author_checks.values import SHOWN, in_fixed_order, refuse
from dkist_processing_core.environments import Requirement
from dkist_processing_core.errors import EnvironmentRequestError, WorkflowError
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase
from dkist_processing_core.text import show, whole_number

# Airflow's own limits on a delay and on the number of retries. The first one is used for other durations as well.
MAX_DELAY_SECONDS = 1e9
MAX_RETRIES = 2**31 - 2
_ESTABLISHED = {"recipe_run_id": 1, "workflow_name": "", "workflow_version": ""}


def check_task(task: Any, expectation: str) -> None:
    """
    Check that a value is the class of a task.

    Raises:
        WorkflowError: The value is not a subclass of TaskBase.
    """
    if not (isinstance(task, type) and issubclass(task, TaskBase)):
        hint = f"; give the class itself, {type(task).__name__}" if isinstance(task, TaskBase) else ""
        refuse(f"{expectation}, a subclass of TaskBase; found {show(task, SHOWN)}{hint}")
    name_of(task.__name__, "the name of a task", MAX_NAME_LENGTH)


def check_runnable(task: type[TaskBase]) -> None:
    """
    Check that a worker could create an instance of a task and run it.

    Raises:
        WorkflowError: A worker could not create or run it.
    """
    if missing := sorted(getattr(task, "__abstractmethods__", ())):
        refuse(f"{task.__name__} cannot be run: it does not define {', '.join(missing)}{_misspelt(task, missing)}")
    _check_constructor(task)
    for phase in ("pre_run", "run", "post_run", "__call__"):
        _check_phase(task, phase)
    retries, delay = task.retries, task.retry_delay_seconds
    if (count := whole_number(retries)) is None or not 0 <= count <= MAX_RETRIES:
        refuse(f"{task.__name__}: retries is {show(retries)}, expected a whole number from 0 to {MAX_RETRIES}")
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY_SECONDS:
        refuse(f"{task.__name__}: retry_delay_seconds is {show(delay)}, expected a number of seconds from 0 to 10^9")
    limit = task.overdue_after_seconds
    if limit is not None and not is_limit(limit):
        refuse(
            f"{task.__name__}: overdue_after_seconds is {show(limit)}, expected a number of seconds above 0 and up to "
            "10^9, or None"
        )


def _misspelt(task: type[TaskBase], missing: list[str]) -> str:
    """Return a hint at a method whose name is nearly one of the missing ones; "" without one."""
    import difflib  # noqa: PLC0415 - only after a mistake

    own = [name for name, value in vars(task).items() if inspect.isfunction(value) and name not in vars(TaskBase)]
    close = next((found[0] for name in missing if (found := difflib.get_close_matches(name, own, n=1))), None)
    return "" if close is None else f"; its method {close} seems misspelt"


def _check_constructor(task: type[TaskBase]) -> None:
    try:
        # The callable takes its own parameters, not those of a function that it wraps.
        signature = inspect.signature(task, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - a metaclass's properties may raise anything
        return  # its parameters are unknown
    try:
        signature.bind(**_ESTABLISHED)
    except TypeError as error:
        refuse(
            f"{task.__name__} cannot be created: its constructor must take {', '.join(_ESTABLISHED)}, and takes "
            f"({', '.join(signature.parameters)[:SHOWN]}) ({error})"
        )


def _check_phase(task: type[TaskBase], phase: str) -> None:
    method = inspect.getattr_static(task, phase)
    function = method.__func__ if isinstance(method, staticmethod | classmethod) else method
    if kind := kind_of_result(function):
        refuse(f"{task.__name__}.{phase} is {kind}, which never runs: define it without async and yield")
    if inspect.isfunction(function) and not hasattr(function, "__signature__"):
        given = () if isinstance(method, staticmethod) else (None,)
        try:
            inspect.signature(function, follow_wrapped=False).bind(*given)
        except TypeError as error:
            refuse(f"{task.__name__}.{phase} is called without arguments: define it as def {phase}(self) ({error})")
    elif not callable(function) and not hasattr(function, "__get__"):
        refuse(f"{task.__name__}.{phase} is {show(method)}, expected a method that takes no arguments")


def upstreams_of(task: type[TaskBase], upstreams: object) -> tuple[type[TaskBase], ...]:
    """
    Return the tasks that a task waits for, each once.

    Raises:
        WorkflowError: One of them is not a task, or is the task itself.
    """
    if upstreams is None:
        return ()
    listed = (upstreams,) if isinstance(upstreams, type) else upstreams
    if not isinstance(listed, Iterable) or isinstance(listed, str | bytes):
        refuse(f"{task.__name__}: upstreams is {show(upstreams, SHOWN)}, expected a task, a sequence of tasks or None")
    upstream_tasks: dict[type[TaskBase], None] = {}
    for upstream in in_fixed_order(listed):
        check_task(upstream, f"{task.__name__}: each upstream must be a task")
        if upstream is task:
            refuse(f"{task.__name__} cannot wait for itself")
        upstream_tasks[upstream] = None
    return tuple(upstream_tasks)


def queue_of(task: type[TaskBase], resource_queue: Any) -> ResourceQueue:
    """
    Return the queue for a member of `ResourceQueue` or its name, the default queue for None.

    Raises:
        WorkflowError: There is no such queue.
    """
    try:
        return ResourceQueue.DEFAULT if resource_queue is None else ResourceQueue(resource_queue)
    except Exception:  # noqa: BLE001 - the enumeration's own sentence shows the value, whose repr may raise anything
        expected = f"expected one of {', '.join(ResourceQueue)}"
        if isinstance(resource_queue, str) and (right := str.lower(resource_queue)) in list(ResourceQueue):
            expected += f"; write {right!r}, or ResourceQueue.{right.upper()}"
        msg = f"{task.__name__}: resource_queue is {show(resource_queue)}, {expected}"
        raise WorkflowError(msg) from None


def extras_of(task: type[TaskBase], pip_extras: object) -> tuple[str, ...]:
    """
    Return the names of the package's extras that a task needs.

    Raises:
        WorkflowError: One of the values cannot be an extra.
    """
    given = () if pip_extras is None else pip_extras
    if isinstance(given, str | bytes):
        refuse(f"{task.__name__}: pip_extras is the string {show(given)}, expected a list of names")
    if not isinstance(given, Iterable):
        refuse(f"{task.__name__}: pip_extras is {show(given)}, expected a list of names")
    extras = tuple(in_fixed_order(given))
    for extra in extras:
        try:
            Requirement("package", "1", [extra])
        except EnvironmentRequestError:
            msg = f"{task.__name__}: pip_extras holds {show(extra)}, expected the name of an extra, for example quality"
            raise WorkflowError(msg) from None
    return tuple(str.__str__(extra) for extra in extras)
