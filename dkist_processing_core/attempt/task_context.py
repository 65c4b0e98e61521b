"""
The context of one task in its process: its settings, its telemetry, and the lifecycle of its running attempt.

Not here: the attempt (lifecycle), and the author's interface of a task (task).
"""

import inspect
import logging
import os
import sys
import weakref
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from dkist_processing_core.attempt.overdue import is_limit
from dkist_processing_core.errors import ConfigurationError, IdentityError
from dkist_processing_core.identity import Attempt, RunsByHand, parse_recipe_run_id
from dkist_processing_core.process import forks
from dkist_processing_core.process.exit_status import fill_standard_descriptors
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.settings.origin import Origin, handed_variables
from dkist_processing_core.text import redact, show
from dkist_processing_core.text.exception_text import class_name, message_of

# Settings, telemetry, events and bus are imported when a task is created or called: a process that only defines tasks,
# for example an export, needs none of them.
if TYPE_CHECKING:
    from dkist_processing_core.attempt.lifecycle import Lifecycle
    from dkist_processing_core.settings.interface import Settings
    from dkist_processing_core.tracing import Telemetry

logger = logging.getLogger(__name__)
_runs_by_hand = RunsByHand()
_NAMES = ("workflow_name", "workflow_version", "task_name")
_NAMELESS: dict[str, Any] = {"workflow_name": "", "workflow_version": "", "recipe_run_id": 0}
"""The identity with which an attempt is traced if the task's own values are unusable."""


class IdentifiedTask(Protocol):
    """The part of a task that identifies its attempts; an author's code may have replaced any of the values."""

    workflow_name: str
    workflow_version: str
    task_name: str
    recipe_run_id: int
    auto_instrument: bool

    @property
    def base_telemetry_attributes(self) -> dict[str, Any]:
        """The attributes of the attempts' spans and measurements."""


class TaskContext:
    """
    The settings and telemetry of one task in this process, and the lifecycle while the task runs.

    It holds secrets, connections and locks. Therefore a pickle contains none of them, even if the author's class
    pickles all of the task's attributes. A copy of the task may share this object; it creates a new one.
    """

    def __init__(self, task: object | None = None) -> None:
        """Store the task; None if this object was unpickled."""
        self._of = None if task is None else weakref.ref(task)
        self._name = class_name(type(task))
        self.lifecycle: Lifecycle | None = None
        self.origin: Origin | None = None
        """The sources of the settings, recorded by the constructor; None for the sources at the time of reading."""

    def begin(self) -> None:
        """Record the sources from which the settings are read later."""
        with signals_deferred():
            try:
                if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
                    # No socket of this package gets a number to which the author's libraries write.
                    fill_standard_descriptors()
                self.origin = Origin.of_process()
            except Exception as error:  # noqa: BLE001 - no error of this package stops the task
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        reason = message_of(error) if isinstance(error, ConfigurationError) else f"an error of this package: {error!r}"
        logger.error("%s publishes no events and no telemetry: %s", self._name, redact(reason))

    def is_of(self, task: object) -> bool:
        """Return True if this context belongs to the task."""
        return self._of is not None and self._of() is task

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Return the constructor call for a copy, which has no content."""
        return TaskContext, ()

    @forks.computed_once
    def settings(self) -> "Settings | None":
        """The settings; None if they are unusable: then the task runs without events and telemetry."""
        from dkist_processing_core.settings.reading import read_leniently  # noqa: PLC0415 - as above

        with signals_deferred():
            try:
                settings, complaint = read_leniently(self.origin)
            except Exception as error:  # noqa: BLE001 - as above
                self._complain(error)
                return None
            if complaint is not None:
                logger.warning("%s runs with a default instead: %s", self._name, complaint)
            return settings

    @forks.computed_once
    def telemetry(self) -> "Telemetry":
        """The telemetry with which the task traces and measures."""
        from dkist_processing_core.tracing import Telemetry, open_telemetry  # noqa: PLC0415 - as above

        with signals_deferred():
            return Telemetry() if self.settings is None else open_telemetry(self.settings)

    def open_lifecycle(self, task: IdentifiedTask) -> "Lifecycle":
        """
        Return the lifecycle of the next attempt of the task; without usable names it publishes no events.

        Raises:
            TypeError: The constructor of this class was not called.
        """
        from dkist_processing_core.attempt.lifecycle import Lifecycle  # noqa: PLC0415 - as above
        from dkist_processing_core.settings.reading import secrets_in  # noqa: PLC0415 - as above

        _refuse_unconstructed(task)
        with signals_deferred():
            settings, attributes = self.settings, None
            try:
                attempt, attributes = _next_attempt(task), dict(task.base_telemetry_attributes)
            except Exception as error:  # noqa: BLE001 - an author's values may raise anything
                reason = message_of(error)
                if not isinstance(error, IdentityError):
                    reason = f"{class_name(type(error))}: {show(reason, 200)}"
                logger.error(  # noqa: TRY400 - one line reports it
                    "%s publishes no events: %s", class_name(type(task)), redact(reason, also=secrets_in(settings))
                )
                attempt, settings = _runs_by_hand.next_attempt(**_NAMELESS, task_name=class_name(type(task))), None
            lifecycle = Lifecycle(attempt, settings=settings, telemetry=self.telemetry, attributes=attributes)
            if self.settings is not None and self.telemetry.has_own_spans:
                lifecycle.libraries = self._libraries(task, self.settings)
            if is_limit(limit := inspect.getattr_static(task, "overdue_after_seconds", None)):
                lifecycle.overdue_after_seconds = float(limit)
            return lifecycle

    def _libraries(self, task: IdentifiedTask, settings: "Settings") -> AbstractContextManager[None]:
        from dkist_processing_core.delivery.reporter import errors_logged  # noqa: PLC0415 - as above

        is_wanted = False
        with errors_logged("libraries are not instrumented"):
            is_wanted = bool(task.auto_instrument)
        return self.telemetry.instrumented_libraries(settings, is_wanted=is_wanted)


def _refuse_unconstructed(task: IdentifiedTask) -> None:
    """
    Refuse a task whose constructor has not called this package's.

    Raises:
        TypeError: One of its attributes is missing.
    """
    for name in ("recipe_run_id", *_NAMES):
        try:
            # A property counts as a value, and so does what the author's `__getattr__` returns or raises.
            is_missing = inspect.getattr_static(task, name, None) is None and not hasattr(task, name)
        except Exception:  # noqa: BLE001 - an author's class may raise anything
            is_missing = False
        if is_missing:
            msg = (
                f"{class_name(type(task))} has no {name}: its __init__ must call "
                "super().__init__(recipe_run_id, workflow_name, workflow_version)"
            )
            raise TypeError(msg)


def _next_attempt(task: IdentifiedTask) -> Attempt:
    """
    Return the attempt that the environment names for this task, or else the next one by hand.

    Raises:
        IdentityError: The task's own values cannot identify an attempt.
    """
    try:
        names = {name: getattr(task, name) for name in _NAMES}
        recipe_run_id = task.recipe_run_id
    except AttributeError as error:
        msg = f"it has no {error.name}: its constructor must call super().__init__ with its arguments"
        raise IdentityError(msg) from error
    for name, value in names.items():
        if not isinstance(value, str):
            msg = f"{name}: found {show(value)}, expected a text"
            raise IdentityError(msg)
        names[name] = str.__str__(value)
    given = None
    for variables in (os.environ, handed_variables()):
        # Remove it from both, so that a later call does not find it in either.
        taken = Attempt.take_from(variables, task_name=names["task_name"], workflow_name=names["workflow_name"])
        given = given or taken
    return given or _runs_by_hand.next_attempt(**names, recipe_run_id=parse_recipe_run_id(recipe_run_id))
