"""
`TaskBase`, what an author of pipelines subclasses.

Not here: how an attempt is observed (attempt), nor how its process is started (local, launcher).
"""

import inspect
import logging
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import Attributes

from dkist_processing_core import forks, semconv
from dkist_processing_core.errors import ConfigurationError, IdentityError
from dkist_processing_core.exception_text import class_name, message_of
from dkist_processing_core.identity import Attempt, RunsByHand, parse_recipe_run_id
from dkist_processing_core.origin import Origin, handed_variables
from dkist_processing_core.signals import held_back
from dkist_processing_core.text import duration, redact, show

# Settings, telemetry, events and bus are imported where a task is made or called: whoever only defines tasks, as an
# export does, needs none of them.
if TYPE_CHECKING:
    from dkist_processing_core.attempt.lifecycle import Lifecycle
    from dkist_processing_core.config import DKISTProcessingCoreConfiguration
    from dkist_processing_core.tracing import Telemetry

logger = logging.getLogger(__name__)
_runs_by_hand = RunsByHand()
_OBSERVING = "_core_observing"
_NAMELESS: dict[str, Any] = {"workflow_name": "", "workflow_version": "", "recipe_run_id": 0}
"""What an attempt is traced by where the task's own values name none."""


class TaskBase(ABC):
    """
    A step of a workflow: implement `run`, and everything else is reported.

    Calling a task runs `pre_run`, `run` and `post_run`; `task.started` is published before, and exactly one of
    `task.finished` and `task.failed` after. An exception is reported with its phase and raised on unchanged.

    Args:
        recipe_run_id: the recipe run that the task works for, an integer.
        workflow_name: the name of the workflow that the task is part of.
        workflow_version: the version of that workflow.

    """

    retries: int = 0
    """How many attempts may follow the first."""
    retry_delay_seconds: int = 60
    """How long to wait before each of them."""

    def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
        """
        Keep what the task works for.

        Raises
        ------
        IdentityError
            where `recipe_run_id` names none: what the task would read and write belongs to no recipe run.

        """
        self.recipe_run_id = parse_recipe_run_id(recipe_run_id)
        self.workflow_name = workflow_name
        self.workflow_version = workflow_version
        self.task_name = type(self).__name__
        # What a constructor that goes on from here changes, as HOME, must not part the start from the end.
        self._core_observing.begin()

    def pre_run(self) -> None:
        """Prepare for `run`. Does nothing unless overridden."""

    @abstractmethod
    def run(self) -> None:
        """Do the task's work."""

    def post_run(self) -> None:
        """Finish what `run` has done. Does nothing unless overridden."""

    def rollback(self) -> None:
        """
        Undo what the task has done to the outside, so that it can be run again by hand.

        Called by people, never by the lifecycle. Does nothing unless overridden.
        """

    def __call__(self) -> None:
        """Run the phases of the task as one attempt."""
        with self._core_open_lifecycle() as lifecycle:
            self._core_observing.lifecycle = lifecycle
            try:
                with lifecycle.phase("pre_run"):
                    _refuse_what_would_not_run(self, "pre_run")
                    self.pre_run()
                with lifecycle.phase("run"):
                    _refuse_what_would_not_run(self, "run")
                    self.run()
                with lifecycle.phase("post_run"):
                    _refuse_what_would_not_run(self, "post_run")
                    self.post_run()
            finally:
                self._core_observing.lifecycle = None

    def progress(
        self, done: float, total: float | None = None, unit: str | None = None, note: str | None = None
    ) -> None:
        """
        Report how far the task is, as in `self.progress(3, 12, "frame")`; cheap enough for an inner loop.

        At most one event a second leaves; the last report before the end always does. Outside of a running task it
        does nothing.

        A fork of the task's process may report too, at most once a second each; what it reports sooner is dropped. A
        copy of the task that was sent to another process, as `pool.map(self.work, parts)` does by any start method,
        is outside of a running task: report in the task itself, as the results come back.
        """
        lifecycle = self._core_observing.lifecycle
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
        """Open a span around a piece of the task's work, below the phase that it is in; the log tells both its ends."""
        name = str.__str__(name) if isinstance(name, str) else show(name, 200)
        with (
            _told(name),
            self._core_observing.telemetry.span(
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
        """The tracer that the task's spans come from."""
        return self._core_observing.telemetry.tracer

    @property
    def meter(self) -> Meter:
        """The meter to create the author's own instruments with."""
        return self._core_observing.telemetry.meter

    @staticmethod
    def format_metric_name(name: str) -> str:
        """
        Return a metric's name in the namespace of the data centre's processing.

        >>> TaskBase.format_metric_name("frames.read")
        'dkist.processing.frames.read'
        """
        return f"{semconv.METRIC_PREFIX}{name}"

    @forks.computed_once
    def base_telemetry_attributes(self) -> dict[str, Any]:
        """What tells this task's measurements from others': its identity, and its allocation where Nomad runs it."""
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
        """Let go of what the task holds. Does nothing unless overridden."""

    def __getstate__(self) -> Any:
        """
        Return what a copy may have of the task, also in another process, as one of a pool: not its observing.

        It is what a mixin's `__getstate__` gives, or Python's own, `__slots__` included.
        """
        state = super().__getstate__()
        match state:
            case dict():
                return _unobserved(state)
            case (dict() as attributes, dict() as slots):
                return _unobserved(attributes), slots
        return state

    def __repr__(self) -> str:
        """Return the constructor's call."""
        # A task whose constructor does not call ours has none of them.
        given = (
            f"{name}={show(getattr(self, name, None), 200)}"
            for name in ("recipe_run_id", "workflow_name", "workflow_version")
        )
        return f"{type(self).__name__}({', '.join(given)})"

    # Names that authors are unlikely to use for attributes of their own.

    @property
    def _core_observing(self) -> "_Observing":
        found = vars(self).get(_OBSERVING)
        if not (type(found) is _Observing and found.is_of(self)):
            # Past the author's __setattr__.
            found = vars(self)[_OBSERVING] = _Observing(self)
        return found

    def _core_open_lifecycle(self) -> "Lifecycle":
        from dkist_processing_core.attempt.lifecycle import Lifecycle  # noqa: PLC0415 - as above
        from dkist_processing_core.config import secrets_in  # noqa: PLC0415 - as above

        with held_back():
            settings, attributes = self._core_observing.settings, None
            try:
                attempt, attributes = self._core_next_attempt(), dict(self.base_telemetry_attributes)
            except Exception as error:  # noqa: BLE001 - an author's values may raise anything
                said = message_of(error)
                if not isinstance(error, IdentityError):
                    said = f"{class_name(type(error))}: {show(said, 200)}"
                logger.error(  # noqa: TRY400 - one line reports it
                    "%s runs without events: %s", class_name(type(self)), redact(said, also=secrets_in(settings))
                )
                attempt, settings = _runs_by_hand.next_attempt(**_NAMELESS, task_name=class_name(type(self))), None
            return Lifecycle(
                attempt, settings=settings, telemetry=self._core_observing.telemetry, attributes=attributes
            )

    def _core_next_attempt(self) -> Attempt:
        try:
            names = {name: getattr(self, name) for name in ("workflow_name", "workflow_version", "task_name")}
            recipe_run_id = self.recipe_run_id
        except AttributeError as error:
            msg = f"it has no {error.name}: its constructor is to call super().__init__ with what it is given"
            raise IdentityError(msg) from error
        for name, value in names.items():
            if not isinstance(value, str):
                msg = f"{name}: found {show(value)}, expected a text"
                raise IdentityError(msg)
            names[name] = str.__str__(value)
        given = None
        for variables in (os.environ, handed_variables()):
            # From both, so that neither lends it to a later call.
            taken = Attempt.take_from(variables, task_name=names["task_name"], workflow_name=names["workflow_name"])
            given = given or taken
        return given or _runs_by_hand.next_attempt(**names, recipe_run_id=parse_recipe_run_id(recipe_run_id))


class _Observing:
    """
    What observes one task in this process: its settings and telemetry, and the lifecycle while the task runs.

    A pickle holds nothing of it, since it has secrets, connections and locks, also where the author's class gives all
    of the task's attributes to one. A copy of the task, which may share it, makes one of its own.
    """

    def __init__(self, task: TaskBase | None = None) -> None:
        """Belong to a task, or, as what comes out of a pickle, to none."""
        self._of = None if task is None else weakref.ref(task)
        self._name = class_name(type(task))
        self.lifecycle: Lifecycle | None = None
        self.origin: Origin | None = None
        """What the settings are read from, decided by the constructor; None for what is current when they are."""

    def begin(self) -> None:
        """Decide what the settings are read from."""
        with held_back():
            try:
                self.origin = Origin.of_process()
            except Exception as error:  # noqa: BLE001 - observing never breaks the observed
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        said = message_of(error) if isinstance(error, ConfigurationError) else f"an error of this package: {error!r}"
        logger.error("%s runs without events and telemetry: %s", self._name, redact(said))

    def is_of(self, task: TaskBase) -> bool:
        """Return whether this belongs to a task."""
        return self._of is not None and self._of() is task

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Return how a copy begins: with nothing."""
        return _Observing, ()

    @forks.computed_once
    def settings(self) -> "DKISTProcessingCoreConfiguration | None":
        """The settings; without usable ones the task runs unobserved, since observing never breaks the observed."""
        from dkist_processing_core.config import DKISTProcessingCoreConfiguration  # noqa: PLC0415 - as above

        with held_back():
            try:
                settings, complaint = DKISTProcessingCoreConfiguration.read_leniently(self.origin)
            except Exception as error:  # noqa: BLE001 - as above
                self._complain(error)
                return None
            if complaint is not None:
                logger.warning("%s runs with a default instead: %s", self._name, complaint)
            return settings

    @forks.computed_once
    def telemetry(self) -> "Telemetry":
        """What the task traces and measures with."""
        from dkist_processing_core.tracing import Telemetry, open_telemetry  # noqa: PLC0415 - as above

        with held_back():
            return Telemetry() if self.settings is None else open_telemetry(self.settings)


def _unobserved(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != _OBSERVING}


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Log the beginning and the end of something: who reads a task's log follows it by these lines."""
    _log("%s began", what)
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        _log("%s ended by %s after %s", what, class_name(type(error)), duration(time.monotonic() - began))
        raise
    _log("%s ended after %s", what, duration(time.monotonic() - began))


def _log(message: str, *facts: str) -> None:
    # A handler of logs takes what is raised meanwhile for an error of its own.
    with held_back():
        logger.info(message, *facts)


def what_calling_makes(function: object) -> str | None:
    """Return what a call of a function only makes, for somebody else to run; None for one that does its work itself."""
    for is_such, kind in (
        (inspect.iscoroutinefunction, "a coroutine"),
        (inspect.isgeneratorfunction, "a generator"),
        (inspect.isasyncgenfunction, "an asynchronous generator"),
    ):
        try:
            if is_such(function):
                return kind
        except Exception:  # noqa: BLE001 - an author's object that is called may raise at any look at it
            return None
    return None


def _refuse_what_would_not_run(task: TaskBase, phase: str) -> None:
    # As it is defined, without asking for it: a property would run twice.
    found = inspect.getattr_static(task, phase)
    function = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    with held_back():
        kind = what_calling_makes(function)
    if kind:
        name = getattr(function, "__qualname__", None) or show(function, 200)
        msg = f"{name} is {kind}, which never runs: define it without `async` and `yield`"
        raise TypeError(msg)
