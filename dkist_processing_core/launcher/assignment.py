"""
The assignment of a launcher: the attempt, the task and the environment, read from variables and checked.

Not here: the variables of the task's own process (task_variables).
"""

import json
import math
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, replace

from dkist_processing_core.attempt.overdue import is_limit
from dkist_processing_core.environments import Requirement
from dkist_processing_core.errors import DKISTProcessingCoreError, IdentityError
from dkist_processing_core.identity import PREFIX, Attempt, Run, class_name_of, parse_run_data
from dkist_processing_core.launcher.bootstrap import FILE, MODULE, SEARCH_PATH
from dkist_processing_core.text import show

PACKAGE, EXTRAS = f"{PREFIX}PACKAGE", f"{PREFIX}EXTRAS"
"""The package whose release of the workflow's version the task runs in, and its extras, separated by commas."""
QUEUE, QUEUED_AT = f"{PREFIX}QUEUE", f"{PREFIX}QUEUED_AT"
"""The queue that the attempt came from, and the time at which it was queued, in seconds since 1970."""
OVERDUE_AFTER = f"{PREFIX}OVERDUE_AFTER_SECONDS"
"""The duration after which the attempt counts as overdue, in seconds; not set if the author gives no limit."""
DELIVERED = f"{PREFIX}DELIVERED"
"""Set if the engine's process delivers the messages in the journal, so that no launcher has to connect."""
ENGINE_FD = f"{PREFIX}ENGINE_FD"
"""The descriptor on which a local run receives the facts of the attempt's end, as one JSON object."""
RECORD_FD = f"{PREFIX}RECORD_FD"
"""The descriptor by which a launcher keeps the record of a local run locked, even if the process of the run dies."""
OWN_ENVIRONMENT = "dev"
"""The version of a workflow whose tasks run in the launcher's own environment."""
_RECIPE_RUN_ID = f"{PREFIX}RECIPE_RUN_ID"
_MODULE_NAME_PARTS = 100


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt to launch."""

    attempt: Attempt
    located: dict[str, str]
    """The variables by which the task's process finds its class (bootstrap)."""
    requirement: Requirement | None = None
    """The package, version and extras that the environment holds; None for the launcher's own environment."""
    queue: str | None = None
    queued_seconds: float | None = None
    overdue_after_seconds: float | None = None
    is_delivered: bool = False
    """Whether another process delivers the messages in the journal."""
    engine_fd: int | None = None
    """The descriptor on which the engine receives the facts of the end; None if it does not wait for them."""
    record_fd: int | None = None
    """The descriptor of the run's record, held while the launcher may report on the run; None without a record."""
    problem: str | None = None
    """The unusable part of the assignment, which prevents the start; None if all of it is usable."""

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> "Assignment":
        """
        Return the assignment that `environ` holds.

        Raises:
            IdentityError: Not even run and task are named, so that no event could be reported.
        """
        found = {name: environ.get(PREFIX + name, "") for name in ("RUN_ID", "WORKFLOW", "TASK")}
        missing = [PREFIX + name for name, value in found.items() if not value]
        if missing:
            msg = f"{', '.join(missing)}: found nothing, expected the names of the run and the task to launch"
            raise IdentityError(msg)
        attempt, problems = _attempt(environ)
        assignment = cls(attempt, {name: environ[name] for name in (MODULE, FILE, SEARCH_PATH) if name in environ})
        try:
            assignment = replace(assignment, requirement=_requirement(attempt, environ))
        except DKISTProcessingCoreError as error:
            problems.append(str(error))
        if not _is_module_name(environ.get(MODULE, "")):
            problems.append(f"{MODULE}: found {show(environ.get(MODULE))}, expected the name of the task's module")
        if not _is_search_path(environ.get(SEARCH_PATH)):
            problems.append(f"{SEARCH_PATH}: found {show(environ.get(SEARCH_PATH))}, expected a JSON array of folders")
        return replace(
            assignment,
            queue=environ.get(QUEUE) or None,
            is_delivered=DELIVERED in environ,
            queued_seconds=_seconds_since(environ.get(QUEUED_AT)),
            overdue_after_seconds=_limit(environ.get(OVERDUE_AFTER)),
            engine_fd=_descriptor(environ.get(ENGINE_FD, "")),
            record_fd=_descriptor(environ.get(RECORD_FD, "")),
            problem="; ".join(problems) or None,
        )


def _attempt(environ: MutableMapping[str, str]) -> tuple[Attempt, list[str]]:
    """Return the attempt and its problems; the attempt can always be reported, even if it cannot be executed."""
    task, workflow, version = (environ.get(PREFIX + name, "") for name in ("TASK", "WORKFLOW", "VERSION"))
    named = Run(workflow, version, environ.get(f"{PREFIX}RUN_ID", ""), None)
    problems: list[str] = []
    try:
        named = replace(named, recipe_run_id=parse_run_data(environ.get(_RECIPE_RUN_ID, "")))
    except IdentityError as error:
        problems.append(f'{error}; in Airflow it comes from the run configuration, such as {{"recipe_run_id": 1}}')
    # The rest is always checked, so that all mistakes are reported at once.
    environ[_RECIPE_RUN_ID] = str(named.recipe_run_id or 0)
    try:
        attempt = Attempt.take_from(environ, task_name=class_name_of(task), workflow_name=workflow)
    except IdentityError as error:
        problems.append(str(error))
        attempt = None
    attempt = attempt or Attempt(named, task, attempt=1, max_attempts=1)
    if not class_name_of(task).isidentifier():
        problems.append(f"{PREFIX}TASK: found {show(task)}, expected the name of a class")
    return replace(attempt, run=named, report_fd=None), problems


def _requirement(attempt: Attempt, environ: MutableMapping[str, str]) -> Requirement | None:
    package, version = environ.get(PACKAGE), attempt.run.workflow_version
    if not package or version == OWN_ENVIRONMENT:
        return None
    extras = [extra for extra in environ.get(EXTRAS, "").split(",") if extra.strip()]
    return Requirement.of(package, version, extras)


def _is_module_name(name: str) -> bool:
    parts = name.split(".")
    return len(parts) <= _MODULE_NAME_PARTS and all(part.isidentifier() for part in parts)


def _is_search_path(text: str | None) -> bool:
    try:
        folders = [] if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(folders, list) and all(isinstance(folder, str) for folder in folders)


def _descriptor(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _limit(text: str | None) -> float | None:
    try:
        limit = float(text or "nan")
    except ValueError:
        return None
    return limit if is_limit(limit) else None


def _seconds_since(moment: str | None) -> float | None:
    try:
        seconds = time.time() - float(moment or "nan")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
