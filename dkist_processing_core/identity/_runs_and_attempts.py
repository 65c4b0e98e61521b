"""
Runs and attempts: the names and numbers by which every reporter identifies them.

Not here: how an identity is turned into an event's id (events) or a span's id (tracing).
"""

import itertools
import json
import math
import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from dkist_processing_core.errors import IdentityError
from dkist_processing_core.process import sources
from dkist_processing_core.text import show, whole_number

PREFIX = "DKIST_CORE_"
BY_HAND = "hand"
LOCAL = "local"
MAX_NUMBER = 2**63 - 1
_MAX_DIGITS = 19
_MAX_RUN_DATA = 200
# The engine names an instance of a mapped task "Name[3]"; the name of its class is still "Name".
_MAPPED = re.compile(r"\[\d+\]$")


def parse_recipe_run_id(value: object) -> int:
    """
    Return the recipe run id for `value`: a whole number, or a string of decimal digits, from 0 to 2^63 - 1.

    Raises:
        IdentityError: The value is anything else; the message shows it in at most 40 characters.
    """
    number = whole_number(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        number = int(value)
    if number is None or not 0 <= number <= MAX_NUMBER:
        msg = f"recipe_run_id: found {show(value)}, expected an integer or decimal digits, from 0 to 2^63 - 1"
        raise IdentityError(msg)
    return number


def parse_run_data(text: str) -> int:
    """
    Return the recipe run id in a text, in the form that an engine passes on: a JSON integer, or decimal digits.

    >>> parse_run_data("5"), parse_run_data('"5"')
    (5, 5)

    Raises:
        IdentityError: The text is anything else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    return parse_recipe_run_id(value)


def to_run_data(value: object) -> str:
    """
    Return a text for `parse_run_data`, of at most 200 characters, for any value that a run may have received.

    A longer value is not a recipe run id, and the kernel would not start a process with it: a variable has at most
    128 KiB (MAX_ARG_STRLEN, execve(2)).
    """
    return json.dumps(value, default=repr)[:_MAX_RUN_DATA]


def new_run_id(kind: str, recipe_run_id: int, now: datetime | None = None) -> str:
    """
    Return a unique id `{kind}__{recipe_run_id}__{UTC time}__{8 hex}`.

    >>> new_run_id("local", 1, datetime(2026, 11, 22, 9, tzinfo=UTC))[:-8]
    'local__1__20261122T090000Z__'
    """
    moment = (now or sources.now()).astimezone(UTC)
    return f"{kind}__{recipe_run_id}__{moment:%Y%m%dT%H%M%SZ}__{sources.random_hex()}"


def class_name_of(task_name: str) -> str:
    """
    Return the name of a task's class.

    >>> class_name_of("ParseL0[3]")
    'ParseL0'
    """
    return _MAPPED.sub("", task_name)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow for one recipe run; `run_id` is its id in the engine."""

    workflow_name: str
    workflow_version: str
    run_id: str
    recipe_run_id: int | None
    """None if the run received no valid recipe run id; none of its tasks is executed then."""

    @property
    def is_by_hand(self) -> bool:
        """Return True if the tasks are called directly, so that no engine starts or ends the run."""
        return self.run_id.startswith(f"{BY_HAND}__")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a task in a run; attempts are numbered from 1 to `max_attempts`."""

    run: Run
    task_name: str
    attempt: int
    max_attempts: int
    log_url: str | None = None
    report_fd: int | None = None
    """The descriptor by which a launcher, if there is one, receives the report that the end is in the journal."""
    started_fd: int | None = None
    """The descriptor that becomes readable as soon as the launcher has put the start into the journal."""
    start_id: str | None = None
    """The id of this start of a process by a launcher; another launch of the same attempt has another id."""
    process_began: float | None = None
    """When the launcher started the process, in the time of `time.monotonic`, which is the same for a whole host."""

    @property
    def is_final(self) -> bool:
        """Return True if no further attempt follows a failure of this one."""
        return self.attempt >= self.max_attempts

    @property
    def key(self) -> str:
        """Return a text that identifies the attempt among all attempts of a host, for the names of notes about it."""
        run = self.run
        return "/".join((run.workflow_name, run.workflow_version, run.run_id, self.task_name, str(self.attempt)))

    def to_environ(self) -> dict[str, str]:
        """Return the environment variables that pass the identity to a process."""
        values = {
            "RUN_ID": self.run.run_id,
            "ATTEMPT": str(self.attempt),
            "MAX_ATTEMPTS": str(self.max_attempts),
            "WORKFLOW": self.run.workflow_name,
            "VERSION": self.run.workflow_version,
            "TASK": self.task_name,
            "RECIPE_RUN_ID": None if self.run.recipe_run_id is None else str(self.run.recipe_run_id),
            "LOG_URL": self.log_url,
            "REPORT_FD": None if self.report_fd is None else str(self.report_fd),
            "STARTED_FD": None if self.started_fd is None else str(self.started_fd),
            "START_ID": self.start_id,
            "PROCESS_BEGAN": None if self.process_began is None else repr(self.process_began),
        }
        return {PREFIX + name: value for name, value in values.items() if value is not None}

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str], *, task_name: str, workflow_name: str) -> Self | None:
        """
        Return the identity that `environ` holds for this task of this workflow, and remove it from `environ`.

        An identity that names another task is not removed: it belongs to that task.

        Raises:
            IdentityError: The variables name this task but do not form a valid identity.
        """
        named = environ.get(PREFIX + "TASK", "")
        if class_name_of(named) != task_name or environ.get(PREFIX + "WORKFLOW") != workflow_name:
            return None
        names = (
            "RUN_ID", "ATTEMPT", "MAX_ATTEMPTS", "WORKFLOW", "VERSION", "TASK", "RECIPE_RUN_ID", "LOG_URL", "REPORT_FD",
            "STARTED_FD", "START_ID", "PROCESS_BEGAN",
        )  # fmt: skip
        found = {name: value for name in names if (value := environ.pop(PREFIX + name, None)) is not None}
        run_id = found.get("RUN_ID")
        if not run_id:
            msg = f"{PREFIX}RUN_ID: found nothing, expected the run's id, since {PREFIX}TASK is set"
            raise IdentityError(msg)
        run = Run(
            workflow_name=workflow_name,
            workflow_version=found.get("VERSION", ""),
            run_id=run_id,
            recipe_run_id=parse_recipe_run_id(found.get("RECIPE_RUN_ID", "")),
        )
        attempt = _count(found, "ATTEMPT", 1)
        return cls(
            run=run,
            task_name=named,
            attempt=attempt,
            max_attempts=max(attempt, _count(found, "MAX_ATTEMPTS", attempt)),
            log_url=found.get("LOG_URL"),
            report_fd=_count(found, "REPORT_FD", 3) if "REPORT_FD" in found else None,
            started_fd=_count(found, "STARTED_FD", 3) if "STARTED_FD" in found else None,
            start_id=found.get("START_ID"),
            process_began=_moment(found.get("PROCESS_BEGAN")),
        )


def _count(found: dict[str, str], name: str, default: int) -> int:
    value = found.get(name, str(default))
    if not (value.isascii() and value.isdigit() and 1 <= len(value) <= _MAX_DIGITS and int(value) >= 1):
        msg = f"{PREFIX}{name}: found {show(value)}, expected a whole number from 1"
        raise IdentityError(msg)
    return int(value)


def _moment(text: str | None) -> float | None:
    """Return a time of `time.monotonic`; None for a text that is none, since only a duration depends on it."""
    try:
        moment = float(text or "nan")
    except ValueError:
        return None
    return moment if math.isfinite(moment) else None


class RunsByHand:
    """
    The runs of one process whose tasks are called directly, from a script, a prompt or a notebook.

    There is one run per workflow, version and recipe run; a further call of a task in it is the task's next attempt.
    """

    def __init__(self) -> None:
        """Start without runs."""
        self._pid = os.getpid()
        self._runs: dict[tuple[str, str, int], Run] = {}
        self._numbers: dict[tuple[Run, str], itertools.count[int]] = {}

    def next_attempt(self, *, workflow_name: str, workflow_version: str, recipe_run_id: int, task_name: str) -> Attempt:
        """Return the identity of the next call of this task, as the last attempt: a further call cannot be foreseen."""
        if self._pid != os.getpid():
            # This is a forked process: its calls must not share run ids with the calls of its parent.
            self._pid = os.getpid()
            self._runs.clear()
            self._numbers.clear()
        key = (workflow_name, workflow_version, recipe_run_id)
        # Each step is atomic: tasks called in several threads share the run, but not the attempt number.
        run = self._runs.setdefault(
            key, Run(workflow_name, workflow_version, new_run_id(BY_HAND, recipe_run_id), recipe_run_id)
        )
        number = next(self._numbers.setdefault((run, task_name), itertools.count(1)))
        return Attempt(run, task_name, attempt=number, max_attempts=number)
