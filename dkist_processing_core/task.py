"""
`TaskBase`, the base class of an author's tasks.

Not here: how an attempt is observed (attempt) and how its process is started (local, launcher).
"""

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import Attributes

from dkist_processing_core import semconv
from dkist_processing_core.attempt.coroutine_check import refuse_coroutines
from dkist_processing_core.attempt.task_context import TaskContext
from dkist_processing_core.identity import parse_recipe_run_id
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text import duration, show
from dkist_processing_core.text.exception_text import class_name

logger = logging.getLogger(__name__)
_CONTEXT = "_core_context"


class TaskBase(ABC):
    """
    A step of a workflow: a subclass implements `run`, and this class reports the events.

    Calling a task runs `pre_run`, `run` and `post_run`; `task.started` is published before, and exactly one of
    `task.finished` and `task.failed` after. An exception ends the attempt: the phases after it do not run, and it is
    reported with its phase and re-raised unchanged.

    In a run, each attempt is a new object in a separate process. An attribute that `pre_run` sets is there in `run`,
    but not in the next attempt and not in another task. A subclass that has a constructor calls `super().__init__` with
    the same three arguments, which are then attributes of these names; `task_name` is the name of the class. The call
    is inside `with task:`, so override `__exit__` to release resources after a success and after a failure.

    Args:
        recipe_run_id: The recipe run that the task processes, an integer.
        workflow_name: The name of the workflow that contains the task.
        workflow_version: The version of that workflow.
    """

    retries: int = 0
    """The number of attempts that may follow the first one; with 0, a failed task is not tried again."""
    retry_delay_seconds: int = 60
    """The delay before each of these attempts, in seconds; 0 for none."""
    overdue_after_seconds: float | None = None
    """
    The duration after which an attempt counts as overdue, in seconds since the start of its process.

    None for no limit of the author; then one is learnt from earlier attempts.
    """
    auto_instrument: bool = True
    """Whether installed instrumentors make spans of the libraries that the task uses, if its spans are exported."""

    def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
        """
        Store the recipe run and the workflow that the task belongs to.

        Raises:
            IdentityError: `recipe_run_id` is not a valid id: the task's data would belong to no recipe run.
        """
        self.recipe_run_id = parse_recipe_run_id(recipe_run_id)
        self.workflow_name = workflow_name
        self.workflow_version = workflow_version
        self.task_name = type(self).__name__
        # A subclass's constructor may change variables such as HOME after this call. Record the sources of the settings
        # now, so that start and end of the task use the same settings.
        self._core_context.begin()

    def pre_run(self) -> None:
        """Prepare for `run`; called first. Does nothing unless overridden."""

    @abstractmethod
    def run(self) -> None:
        """Do the task's work. The attempt succeeds if no phase raises an exception; the returned value is not used."""

    def post_run(self) -> None:
        """Complete the work of `run`; called only if `run` has succeeded. Does nothing unless overridden."""

    def rollback(self) -> None:
        """
        Undo the task's external effects, so that the task can be run again by hand.

        People call it; the lifecycle never does. Does nothing unless overridden.
        """

    def __call__(self) -> None:
        """Run the phases of the task as one attempt."""
        with self._core_context.open_lifecycle(self) as lifecycle:
            self._core_context.lifecycle = lifecycle
            try:
                with lifecycle.phase("pre_run"):
                    refuse_coroutines(self, "pre_run")
                    self.pre_run()
                with lifecycle.phase("run"):
                    refuse_coroutines(self, "run")
                    self.run()
                with lifecycle.phase("post_run"):
                    refuse_coroutines(self, "post_run")
                    self.post_run()
            finally:
                self._core_context.lifecycle = None

    def progress(
        self, done: float, total: float | None = None, unit: str | None = None, note: str | None = None
    ) -> None:
        """
        Report the progress of the task, as in `self.progress(3, 12, "frame")`; cheap enough for an inner loop.

        At most one event is published per second; the last report before the end is always published. Outside of a
        running task, the call does nothing.

        A fork of the task's process may also report. Each fork publishes at most one report per second, and drops
        earlier ones. A copy of the task in another process, as made by `pool.map(self.work, parts)` with any start
        method, is outside of a running task: report in the task itself, as the results come back.

        Args:
            done: The amount that is done.
            total: The amount of all work; None if it is not known.
            unit: The unit of both amounts.
            note: A short text for people.
        """
        lifecycle = self._core_context.lifecycle
        if lifecycle is not None:
            lifecycle.progress(done, total, unit, note)

    @contextmanager
    def telemetry_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - as OpenTelemetry has it
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
        end_on_exit: bool = True,  # noqa: FBT001, FBT002
    ) -> Iterator[Span]:
        """
        Open a span for a part of the task's work as a child of the current phase, and log its start and end.

        Used as `with self.telemetry_span("read the frames"):`. Only the name is needed; the other arguments are those
        of OpenTelemetry's `start_as_current_span`.

        Args:
            name: The name of the part.
            context: The context of the parent span; None for the current span.
            kind: The kind of the span.
            attributes: The attributes of the span.
            links: Links to other spans.
            start_time: The start, in nanoseconds since 1970; None for now.
            record_exception: Whether an exception that leaves the block is recorded in the span.
            set_status_on_exception: Whether such an exception sets the status of the span, if it has none yet.
            end_on_exit: Whether the span ends with the block.
        """
        name = str.__str__(name) if isinstance(name, str) else show(name, 200)
        with (
            _logged(name),
            self._core_context.telemetry.span(
                name,
                context=context,
                kind=kind,
                attributes=attributes,
                links=links,
                start_time=start_time,
                record_exception=record_exception,
                set_status_on_exception=set_status_on_exception,
                end_on_exit=end_on_exit,
            ) as span,
        ):
            yield span

    apm_step = telemetry_span
    """The older name of `telemetry_span`."""

    @property
    def tracer(self) -> Tracer:
        """The tracer that creates the task's spans."""
        return self._core_context.telemetry.tracer

    @property
    def meter(self) -> Meter:
        """The meter with which the author creates instruments."""
        return self._core_context.telemetry.meter

    @staticmethod
    def format_metric_name(name: str) -> str:
        """
        Return the name of a metric with the prefix of the data centre's processing.

        >>> TaskBase.format_metric_name("frames.read")
        'dkist.processing.frames.read'
        """
        return f"{semconv.METRIC_PREFIX}{name}"

    @forks.computed_once
    def base_telemetry_attributes(self) -> dict[str, Any]:
        """The attributes that identify this task's measurements: its identity, and its allocation if Nomad runs it."""
        return {
            semconv.RECIPE_RUN_ID: self.recipe_run_id,
            semconv.WORKFLOW_NAME: self.workflow_name,
            semconv.WORKFLOW_VERSION: self.workflow_version,
            semconv.TASK_NAME: self.task_name,
        } | semconv.nomad_attributes(os.environ)

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Release the task's resources. Does nothing unless overridden."""

    def __getstate__(self) -> Any:
        """
        Return the state for a copy of the task, such as one in a pool's process, without its observer.

        The state comes from a mixin's `__getstate__`, or else from Python's own, with `__slots__` included.
        """
        state = super().__getstate__()
        match state:
            case dict():
                return _unobserved(state)
            case (dict() as attributes, dict() as slots):
                return _unobserved(attributes), slots
        return state

    def __repr__(self) -> str:
        """Return the constructor call as text."""
        # If a subclass's constructor does not call ours, these attributes are missing.
        given = (
            f"{name}={show(getattr(self, name, None), 200)}"
            for name in ("recipe_run_id", "workflow_name", "workflow_version")
        )
        return f"{type(self).__name__}({', '.join(given)})"

    # The names below are unlikely to clash with an author's own attributes.

    @property
    def _core_context(self) -> TaskContext:
        found = vars(self).get(_CONTEXT)
        if not (type(found) is TaskContext and found.is_of(self)):
            # This bypasses the author's __setattr__.
            found = vars(self)[_CONTEXT] = TaskContext(self)
        return found


def _unobserved(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != _CONTEXT}


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log the start and end of a named part of the work, so that readers of the task's log can follow it."""
    _log("%s began", what)
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        _log("%s ended by %s after %s", what, class_name(type(error)), duration(time.monotonic() - began))
        raise
    _log("%s ended after %s", what, duration(time.monotonic() - began))


def _log(message: str, *values: str) -> None:
    # A log handler would treat an exception that is raised inside it as its own error.
    with signals_deferred():
        logger.debug(message, *values)
