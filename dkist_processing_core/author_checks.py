"""
The values that an author may pass to a workflow, and a one-sentence error message for every other value.

A mistake is reported where it is made, not at the export and not on a worker. Not here: the relations between tasks
(workflow).
"""

import inspect
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from dkist_processing_core.environments import Requirement
from dkist_processing_core.errors import EnvironmentRequestError, WorkflowError
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase, what_calling_makes
from dkist_processing_core.text import clean, show, whole_number

MAX_NAME_LENGTH = 100
# The engine's own limits on the length of a tag, on a delay and on the number of tries.
MAX_TAG_LENGTH = 100
MAX_DELAY_SECONDS = 1e9
MAX_RETRIES = 2**31 - 2
_FORBIDDEN = re.compile(r"[^A-Za-z0-9\-._]")
_ALLOWED = "letters, digits, dash, dot and underscore"
_ESTABLISHED = {"recipe_run_id": 1, "workflow_name": "", "workflow_version": ""}
_SHOWN = 120


def name_of(name: str, what: str, max_length: int) -> str:
    """
    Return the name if the engine allows it.

    Raises:
        WorkflowError: The name is too long, or holds other characters.
    """
    forbidden = sorted(set(_FORBIDDEN.findall(name)))
    if forbidden:
        shown = ", ".join(repr(character) for character in forbidden[:5])
        _refuse(f"{what} is {show(name, _SHOWN)}, which holds {shown}; allowed are {_ALLOWED}")
    if not 1 <= len(name) <= max_length:
        _refuse(f"{what} is {show(name, _SHOWN)}, {len(name)} characters; allowed are 1 to {max_length}")
    return name


def text_of(value: object, argument: str) -> str | None:
    """
    Return a part of a name as a plain `str`, or None if it is not given.

    Raises:
        WorkflowError: The value is not a string.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        _refuse(f"{argument} is {show(value, _SHOWN)}, expected a string")
    # A member of a string enumeration is a `str` too, but its str() may differ.
    return str.__str__(value)


def tags_of(tags: object) -> list[str]:
    """
    Return the tags, each as a plain `str`.

    Raises:
        WorkflowError: One of the values is not a tag.
    """
    # An empty tag counts as not given, as in earlier releases: it comes from a variable that is not set.
    given = (tags,) if isinstance(tags, str) else () if tags is None else tags
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        _refuse(f"tags is {show(tags, _SHOWN)}, expected a list of texts")
    return [tag_of(tag) for tag in _in_fixed_order(given) if not (isinstance(tag, str) and tag == "")]


def tag_of(tag: object) -> str:
    """
    Return a tag as a plain `str`.

    Raises:
        WorkflowError: The value is not a tag.
    """
    # The engine's database accepts neither NUL nor half of a surrogate pair; NUL terminates its DAG processor.
    if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG_LENGTH or clean(tag) != tag:
        _refuse(f"tags: found {show(tag, _SHOWN)}, expected text of 1 to {MAX_TAG_LENGTH} characters, none for control")
    return str.__str__(tag)


def check_task(task: Any, expectation: str) -> None:
    """
    Check that a value is the class of a task.

    Raises:
        WorkflowError: The value is not a subclass of TaskBase.
    """
    if not (isinstance(task, type) and issubclass(task, TaskBase)):
        _refuse(f"{expectation}, a subclass of TaskBase; got {show(task, _SHOWN)}")
    name_of(task.__name__, "the name of a task", MAX_NAME_LENGTH)


def check_runnable(task: type[TaskBase]) -> None:
    """
    Check that a worker could create an instance of a task and run it.

    Raises:
        WorkflowError: A worker could not create or run it.
    """
    if missing := sorted(getattr(task, "__abstractmethods__", ())):
        _refuse(f"{task.__name__} cannot be run: it does not define {', '.join(missing)}")
    _check_constructor(task)
    for phase in ("pre_run", "run", "post_run", "__call__"):
        _check_phase(task, phase)
    retries, delay = task.retries, task.retry_delay_seconds
    if (count := whole_number(retries)) is None or not 0 <= count <= MAX_RETRIES:
        _refuse(f"{task.__name__}: retries is {show(retries)}, expected a whole number from 0 to {MAX_RETRIES}")
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY_SECONDS:
        _refuse(f"{task.__name__}: retry_delay_seconds is {show(delay)}, expected a number of seconds from 0 to 10^9")


def _check_constructor(task: type[TaskBase]) -> None:
    try:
        # The callable takes its own parameters, not those of a function that it wraps.
        signature = inspect.signature(task, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - a metaclass's properties may raise anything
        return  # its parameters are unknown
    try:
        signature.bind(**_ESTABLISHED)
    except TypeError as error:
        _refuse(
            f"{task.__name__} cannot be made: its constructor is to take {', '.join(_ESTABLISHED)}, and takes "
            f"({', '.join(signature.parameters)[:_SHOWN]}) ({error})"
        )


def _check_phase(task: type[TaskBase], phase: str) -> None:
    method = inspect.getattr_static(task, phase)
    function = method.__func__ if isinstance(method, staticmethod | classmethod) else method
    if kind := what_calling_makes(function):
        _refuse(f"{task.__name__}.{phase} is {kind}, which never runs: define it without async and yield")
    if inspect.isfunction(function) and not hasattr(function, "__signature__"):
        given = () if isinstance(method, staticmethod) else (None,)
        try:
            inspect.signature(function, follow_wrapped=False).bind(*given)
        except TypeError as error:
            _refuse(f"{task.__name__}.{phase} is called without arguments: define it as def {phase}(self) ({error})")
    elif not callable(function) and not hasattr(function, "__get__"):
        _refuse(f"{task.__name__}.{phase} is {show(method)}, expected a method that takes no arguments")


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
        _refuse(
            f"{task.__name__}: upstreams is {show(upstreams, _SHOWN)}, expected a task, a sequence of tasks or None"
        )
    waits_for: dict[type[TaskBase], None] = {}
    for upstream in _in_fixed_order(listed):
        check_task(upstream, f"{task.__name__}: each of upstreams is to be a task")
        if upstream is task:
            _refuse(f"{task.__name__} cannot wait for itself")
        waits_for[upstream] = None
    return tuple(waits_for)


def queue_of(task: type[TaskBase], resource_queue: Any) -> ResourceQueue:
    """
    Return the queue for a member of `ResourceQueue` or its name, the default queue for None.

    Raises:
        WorkflowError: There is no such queue.
    """
    try:
        return ResourceQueue.DEFAULT if resource_queue is None else ResourceQueue(resource_queue)
    except Exception:  # noqa: BLE001 - the enumeration's own sentence shows the value, whose repr may raise anything
        msg = f"{task.__name__}: resource_queue is {show(resource_queue)}, expected one of {', '.join(ResourceQueue)}"
        raise WorkflowError(msg) from None


def extras_of(task: type[TaskBase], pip_extras: object) -> tuple[str, ...]:
    """
    Return the names of the package's extras that a task needs.

    Raises:
        WorkflowError: One of the values cannot be an extra.
    """
    given = () if pip_extras is None else pip_extras
    if isinstance(given, str | bytes):
        _refuse(f"{task.__name__}: pip_extras is the string {show(given)}, expected a list of names")
    if not isinstance(given, Iterable):
        _refuse(f"{task.__name__}: pip_extras is {show(given)}, expected a list of names")
    extras = tuple(_in_fixed_order(given))
    for extra in extras:
        try:
            Requirement("package", "1", [extra])
        except EnvironmentRequestError as error:
            msg = f"{task.__name__}: pip_extras holds {show(extra)}, expected the name of an extra, as quality"
            raise WorkflowError(msg) from error
    return tuple(str.__str__(extra) for extra in extras)


def _in_fixed_order(given: Iterable[Any]) -> Iterable[Any]:
    """Return an author's items in the order given; sort a set, whose order differs from process to process."""
    return (
        sorted(given, key=lambda each: getattr(each, "__name__", show(each, _SHOWN)))
        if isinstance(given, AbstractSet)
        else given
    )


def _refuse(msg: str) -> NoReturn:
    raise WorkflowError(msg)
