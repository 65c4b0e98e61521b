"""
The events that are published: one frozen class each, named in the past tense, with each field declared once.

It is longer than most modules: it is the one list of what an event may state, and is read as a whole. Not here: the
common attributes of all events (event), the kinds of values (_kinds), and their form on the wire (codec).
"""

from typing import Annotated, ClassVar, Literal

import msgspec

from dkist_processing_core.events._failure import family_by
from dkist_processing_core.events._kinds import (
    Cause,
    Count,
    Cut,
    FreeText,
    Number,
    Ordinal,
    Seconds,
    UtcTime,
    Whole,
    Withdrawn,
    about,
)
from dkist_processing_core.events._resources import PROFILE, RESOURCES, Profile, Resources
from dkist_processing_core.events.event import Event, Graph
from dkist_processing_core.identity.trace_context import format_time
from dkist_processing_core.text import duration, size

SEQUENCE = about(
    "The number of the event among those of this type about one attempt or run, from 0, with gaps. Of `task.overdue` "
    "and `workflow.overdue`, twice the milliseconds since 1970 of the last sign of life, or of the start if the "
    "duration exceeds its limit, and 1 more if the event withdraws that alarm."
)

_HOST = about("The host on which the process runs.")
_KIB = 1024
# A fingerprint of ours has 16.
_LONGEST_FAMILY = 100
KILLED = "the task was killed by {}"
"""The message of a launcher about the end by a signal, of which it knows only the name."""
EXITED = "the process exited with status {}"
"""The message of a launcher about an exit code, of which it knows nothing else."""
_LIMIT = about("The limit in seconds.")
_LAST_SIGN = about("The time of the last report of the task or its launcher, or of the last report on the run.")
_AGE = "The age of `{}` at the end of the task, in seconds."
_DURATION = (
    "The duration of the run, or of the attempt, in seconds. That of an attempt is without the preparation of its "
    "environment: from the start of its process until the task publishes its end, or until the process ends if the "
    "task does not. For a task called by hand, it is the duration of the call."
)


class WorkflowEvent(Event, frozen=True, kw_only=True, dict=True):
    """An event about a run as a whole."""


class WorkflowStarted(WorkflowEvent, frozen=True, kw_only=True, dict=True):
    """Signals that a run began."""

    name: ClassVar[str] = "workflow.started"

    started_at: Annotated[UtcTime | None, about("The time at which the run began, by the engine.")] = None
    graph: Annotated[
        Graph | None, about("The tasks in dependency order, and the edges from upstream to downstream.", Cut.GRAPH)
    ] = None

    @property
    def number(self) -> str:
        """The time at which the run began, as text; "" if it is not known."""
        return "" if self.started_at is None else format_time(self.started_at)


class WorkflowEnd(WorkflowEvent, frozen=True, kw_only=True, dict=True):
    """The end of a run, with any result."""

    ended_at: Annotated[UtcTime | None, about("The time at which the run ended, by the engine.")] = None
    duration_seconds: Annotated[Seconds | None, about(_DURATION)] = None
    tasks: Annotated[dict[str, str], about("The state of every task, as the engine names it.", Cut.STATES)] = (
        msgspec.field(default_factory=dict)
    )

    @property
    def number(self) -> str:
        """The time at which the run ended, as text; "" if it is not known."""
        return "" if self.ended_at is None else format_time(self.ended_at)


class WorkflowFinished(WorkflowEnd, frozen=True, kw_only=True, dict=True):
    """Signals that a run ended, and that it succeeded for the engine."""

    name: ClassVar[str] = "workflow.finished"


class WorkflowFailed(WorkflowEnd, frozen=True, kw_only=True, dict=True):
    """Signals that a run ended, and that it failed for the engine."""

    name: ClassVar[str] = "workflow.failed"
    lost: ClassVar[str] = "lost:"
    """The beginning of the reason of a run whose process ended without a report of the end."""

    reason: Annotated[FreeText | None, about("The reason, as the engine words it.", Cut.NOTE)] = None

    @property
    def is_of_lost_run(self) -> bool:
        """Whether the process of the run ended without a report, so that no process knows when the run ended."""
        return self.ended_at is None and (self.reason or "").startswith(self.lost)


class WorkflowOverdue(WorkflowEvent, frozen=True, kw_only=True, dict=True):
    """Signals that an expected run did not start, or that a run neither runs an attempt nor ends; or withdraws that."""

    name: ClassVar[str] = "workflow.overdue"

    expected_at: Annotated[
        UtcTime | None,
        about(
            "The time at which a run was expected that has not started. Then `dagRunId` is empty, and so is "
            "`workflowVersion` unless one is expected."
        ),
    ] = None
    grace_seconds: Annotated[
        Seconds | None, about("The time after `expectedAt` within which a start is not late, in seconds.")
    ] = None
    sequence: Annotated[Count | None, SEQUENCE] = None
    limit_seconds: Annotated[Seconds | None, _LIMIT] = None
    last_sign_at: Annotated[UtcTime | None, _LAST_SIGN] = None
    withdrawn: Withdrawn = None

    @property
    def number(self) -> str:
        """The time at which a run was expected, or the sequence number, as text."""
        if self.expected_at is not None:
            return format_time(self.expected_at)
        return "" if self.sequence is None else str(self.sequence)

    @property
    def is_missed_start(self) -> bool:
        """Whether it is about a run that has not started, and that has no id."""
        return not self.run_id

    @property
    def summary(self) -> str:
        """What is overdue, in one line as `dkist-core` shows it: `no run began at 2026-11-29 06:30:00 UTC`."""
        if self.expected_at is None:
            return f"neither an attempt nor an end{_longer_than(self.limit_seconds)}"
        grace = f", nor within {duration(self.grace_seconds)} after it" if self.grace_seconds else ""
        return f"no run began at {self.expected_at:%Y-%m-%d %H:%M:%S} UTC{grace}"


class TaskEvent(Event, frozen=True, kw_only=True, dict=True):
    """An event about an attempt of a task."""

    task_name: Annotated[str, about("The name of the task; an instance of a mapped task is named as in `Name[3]`.")]
    attempt: Annotated[
        Ordinal | None, about("The number of the attempt, from 1; omitted if the reporter cannot know it.")
    ] = None
    max_attempts: Annotated[Ordinal | None, about("The largest possible number of attempts.")] = None

    @property
    def _task_and_attempt(self) -> tuple[str, str]:
        return (self.task_name, "" if self.attempt is None else str(self.attempt))


class TaskDispatched(TaskEvent, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt reached a worker, which now prepares its environment."""

    name: ClassVar[str] = "task.dispatched"

    queue: Annotated[str | None, about("The queue of the worker.")] = None
    worker: Annotated[str | None, about("The worker's host.")] = None
    queued_seconds: Annotated[Seconds | None, about("The time that the attempt waited for the worker, in seconds.")] = (
        None
    )


class TaskStarted(TaskEvent, frozen=True, kw_only=True, dict=True):
    """Signals that the process of a task began."""

    name: ClassVar[str] = "task.started"

    host: Annotated[str | None, _HOST] = None
    pid: Annotated[Count | None, about("The process id on that host.")] = None
    environment: Annotated[
        Literal["built", "reused"] | None,
        about("Whether the task's environment was built for this attempt, or existed already."),
    ] = None
    environment_seconds: Annotated[Seconds | None, about("The time to find or build the environment, in seconds.")] = (
        None
    )
    sample_seconds: Annotated[
        Seconds | None,
        about("The time until the first `task.sampled`, in seconds; omitted if none is to be expected."),
    ] = None
    overdue_after_seconds: Annotated[
        Seconds | None,
        about("The duration after which the author regards the attempt as overdue, from the start of its process."),
    ] = None


class TaskProgressed(TaskEvent, frozen=True, kw_only=True, dict=True):
    """Signals the progress of an attempt, as the author reports it."""

    name: ClassVar[str] = "task.progressed"

    sequence: Annotated[Count, SEQUENCE]
    done: Annotated[Number, about("The amount that is done, in the author's unit.")]
    total: Annotated[Number | None, about("The amount of all work, in the same unit.")] = None
    unit: Annotated[FreeText | None, about("The unit of both amounts.")] = None
    note: Annotated[FreeText | None, about("A note of the author.", Cut.NOTE)] = None

    @property
    def number(self) -> str:
        """The sequence number, as text."""
        return str(self.sequence)


class TaskSampled(TaskEvent, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt is alive, and what its processes use."""

    name: ClassVar[str] = "task.sampled"

    sequence: Annotated[Count, SEQUENCE]
    host: Annotated[str | None, _HOST] = None
    interval_seconds: Annotated[
        Seconds | None, about("The time until the next event of this type is due, in seconds.")
    ] = None
    resources: Annotated[Resources | None, RESOURCES] = None
    top_frame: Annotated[
        FreeText | None, about("Where the task is: the deepest frame of its main thread, with file, line and function.")
    ] = None

    @property
    def number(self) -> str:
        """The sequence number, as text."""
        return str(self.sequence)


class TaskEnd(TaskEvent, frozen=True, kw_only=True, dict=True):
    """The end of an attempt, with any result."""

    provisional: Annotated[
        bool,
        about(
            "Whether the report may be wrong: one of an engine, which a report of the task or the launcher replaces."
        ),
    ] = False
    duration_seconds: Annotated[Seconds | None, about(_DURATION)] = None
    cpu_seconds: Annotated[Seconds | None, about("The processor time of the task and its children.")] = None
    peak_memory_bytes: Annotated[
        Count | None, about("The largest resident memory of one process of the task, in bytes.")
    ] = None
    phases: Annotated[
        dict[str, Seconds], about("The seconds spent in each phase that was entered: `pre_run`, `run`, `post_run`.")
    ] = msgspec.field(default_factory=dict)
    resources: Annotated[Resources | None, RESOURCES] = None
    profile: Annotated[Profile | None, about(PROFILE, Cut.PROFILE, limit=4 * _KIB)] = None

    @property
    def peak_memory(self) -> int | None:
        """The largest resident memory in bytes, for readers: of all processes together where that was measured."""
        whole = None if self.resources is None else self.resources.peak_rss
        return max((each for each in (self.peak_memory_bytes, whole) if each is not None), default=None)


class TaskFinished(TaskEnd, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt succeeded."""

    name: ClassVar[str] = "task.finished"


class TaskFailed(TaskEnd, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt failed."""

    name: ClassVar[str] = "task.failed"

    final: Annotated[
        bool | None, about("Whether no further attempt follows; omitted if the reporter cannot know it.")
    ] = None
    cause: Annotated[Cause, about("The cause of the failure. A newer release may have causes that are not listed.")]
    phase: Annotated[str | None, about("The phase in which it failed.")] = None
    error_type: Annotated[str | None, about("The class of the exception, with its module.")] = None
    message: Annotated[FreeText | None, about("The message of the exception.", Cut.MESSAGE)] = None
    stack: Annotated[FreeText | None, about("The stack of the exception; only its end if it was cut.", Cut.STACK)] = (
        None
    )
    fingerprint: Annotated[
        str | None,
        about(
            "Equal for equal failures: derived from the type of the exception and the functions that it passed through."
        ),
    ] = None
    exit_code: Annotated[Whole | None, about("The exit code of the process.")] = None
    signal: Annotated[str | None, about("The name of the signal that ended the process.")] = None
    log_url: Annotated[FreeText | None, about("The address of the attempt's log.")] = None
    last_stack: Annotated[
        FreeText | None,
        about(
            "Where the threads of a task were that could not report its end itself, at the last sample: the main "
            "thread first, the deepest frame of each first, without values of variables. If it was cut, other threads "
            "are missing, or the outer frames of the first.",
            Cut.THREADS,
            Cut.THREAD,
            limit=16 * _KIB,
        ),
    ] = None
    last_stack_age_seconds: Annotated[Seconds | None, about(_AGE.format("lastStack"))] = None
    last_log: Annotated[
        FreeText | None, about("The last lines that such a task logged, oldest first.", Cut.LOG, limit=8 * _KIB)
    ] = None
    last_log_age_seconds: Annotated[Seconds | None, about(_AGE.format("lastLog"))] = None
    last_phase: Annotated[FreeText | None, about("The phase that such a task had entered last.", Cut.NOTE)] = None
    last_phase_age_seconds: Annotated[
        Seconds | None, about("The time since that phase was entered, until the end of the task, in seconds.")
    ] = None
    last_progress: Annotated[
        FreeText | None, about("The last progress of such a task, as in `3/12 frame: note`.", Cut.NOTE)
    ] = None
    last_progress_age_seconds: Annotated[Seconds | None, about(_AGE.format("lastProgress"))] = None

    @property
    def family(self) -> str:
        """
        Equal for equal failures: the fingerprint, or without one derived from task, cause, exit code and signal.

        Other publishers may have fingerprints of any length; it is at most 100 characters long, for an index.
        """
        family = self.fingerprint or family_by(self.task_name, self.cause, self.exit_code, self.signal, self.error_type)
        return family if len(family) <= _LONGEST_FAMILY else family_by(family)

    @property
    def summary(self) -> str:
        """Why the attempt failed, in one line as `dkist-core` shows it: `exception in run: KeyError: 'missing'`."""
        head = self.cause.replace("_", " ")
        if self.cause == Cause.EXIT_CODE and self.exit_code is not None:
            head = f"exit code {self.exit_code}"
        elif self.signal is not None:
            head = f"signal {self.signal}" if self.cause == Cause.SIGNAL else f"{head} ({self.signal})"
        if self.cause == Cause.OUT_OF_MEMORY and self.peak_memory is not None:
            head = f"{head} at {size(self.peak_memory)}"
        if self.phase:
            head = f"{head} in {self.phase}"
        in_head = {Cause.SIGNAL: KILLED.format(self.signal), Cause.EXIT_CODE: EXITED.format(self.exit_code)}
        message = "" if self.message == in_head.get(self.cause) else _first_line(self.message)
        parts = [_first_line(head), _first_line(self.error_type).rpartition(".")[2], message]
        return ": ".join(part for part in parts if part)


class TaskSkipped(TaskEnd, frozen=True, kw_only=True, dict=True):
    """Signals that the engine skipped a task."""

    name: ClassVar[str] = "task.skipped"

    reason: Annotated[FreeText | None, about("The reason, as the engine words it.", Cut.NOTE)] = None


class TaskOverdue(TaskEvent, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt gave no sign of life, or did not end, within a limit; or withdraws such an alarm."""

    name: ClassVar[str] = "task.overdue"

    sequence: Annotated[Count, SEQUENCE]
    limit_seconds: Annotated[Seconds, _LIMIT]
    exceeded: Annotated[
        Literal["silence", "duration"] | None,
        about("What exceeds the limit: the time without a sign of life, or the time since the start of the process."),
    ] = None
    last_sign_at: Annotated[UtcTime | None, _LAST_SIGN] = None
    withdrawn: Withdrawn = None

    @property
    def number(self) -> str:
        """The sequence number, as text."""
        return str(self.sequence)

    @property
    def summary(self) -> str:
        """What is overdue, in one line as `dkist-core` shows it: `no sign of life for more than 90 s`."""
        return f"{'running' if self.exceeded == 'duration' else 'no sign of life'}{_longer_than(self.limit_seconds)}"


EVENT_CLASSES: tuple[type[Event], ...] = tuple(
    each
    for each in list(vars().values())
    if isinstance(each, type) and issubclass(each, Event) and "name" in vars(each)
)
"""The classes above that have a name, in their order: the published events."""


def _longer_than(seconds: float | None) -> str:
    return "" if seconds is None else f" for more than {duration(seconds)}"


def _first_line(text: str | None) -> str:
    """Return the first line that is not blank, with single spaces; "" without one."""
    return next((line for each in (text or "").splitlines() if (line := " ".join(each.split()))), "")
