"""
The facts that are published: one frozen class each, named in the past tense.

Not here: how they look on the wire (_codec), and where they are sent.
"""

import uuid
from bisect import bisect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel

from dkist_processing_core.forks import computed_once
from dkist_processing_core.identity import MAX_NUMBER, Attempt, Run, parse_recipe_run_id
from dkist_processing_core.text import clean, clean_line, clip
from dkist_processing_core.trace_context import format_facts, format_time

TYPE_PREFIX = "edu.nso.dkist."
ID_NAMESPACE = uuid.UUID("833a4626-3965-5ef6-86cd-1e4e2a0d402a")
MAX_ENCODED_BYTES = 64 * 1024
"""What an intermediary must carry at most, by the CloudEvents specification 1.0.2, "Size Limits"."""
MAX_BODY_BYTES = 1024 * 1024
"""What a consumer reads at most of one message, which is far above what an event has."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        msg = "in UTC it should be in the years 1 to 9999"
        raise ValueError(msg) from None


def _in_parts(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Validate a large collection part by part, since pydantic collects an error for each wrong item of a part."""
    if not isinstance(value, list | tuple | dict) or len(value) <= _PART:
        return validate(value)
    if isinstance(value, dict):
        return {name: item for part in _parts(list(value.items())) for name, item in validate(dict(part)).items()}
    return tuple(item for part in _parts(value) for item in validate(part))


def _parts(items: list[Any] | tuple[Any, ...]) -> Iterator[list[Any] | tuple[Any, ...]]:
    return (items[start : start + _PART] for start in range(0, len(items), _PART))


_PART = 100
_InParts = WrapValidator(_in_parts)
Text = Annotated[str, BeforeValidator(lambda value: clean(value) if isinstance(value, str) else value)]
Line = Annotated[str, BeforeValidator(lambda value: clean_line(value) if isinstance(value, str) else value)]
UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc), PlainSerializer(format_time, when_used="json")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Whole numbers are those of 64 bits, as consumers' databases and languages have them.
Whole = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Whole | Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Ordinal = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
RecipeRunId = Annotated[
    int | None,
    Field(ge=0, le=MAX_NUMBER),
    BeforeValidator(lambda value: None if value is None else parse_recipe_run_id(value)),
]


# Kept beside the fields, as a cached property is: two events are equal if they state the same.
_ACKNOWLEDGE, _RECEIVED_AT = "_acknowledge", "_received_at"


class Reporter(StrEnum):
    """Who says so; each sees what the others cannot."""

    TASK = "task"
    LAUNCHER = "launcher"
    ENGINE = "engine"
    WATCHER = "watcher"


class Cause(StrEnum):
    """Why an attempt failed, the least specific first: where reports agree on a failure, the later member wins."""

    LOST = "lost"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TERMINATED = "terminated"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    EXCEPTION = "exception"
    ENVIRONMENT = "environment"
    CONFIGURATION = "configuration"


class Graph(BaseModel):
    """The nodes of a workflow in dependency order, and its edges from upstream to downstream."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, defer_build=True)

    nodes: Annotated[tuple[Text, ...], _InParts]
    edges: Annotated[tuple[tuple[Text, Text], ...], _InParts]


class Event(BaseModel):
    """
    A fact about a run, complete in itself: who, what, when, and the trace it belongs to.

    Text is cleaned as it comes in: control characters but newline and tab, and lone surrogates, become U+FFFD.
    """

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        defer_build=True,
        # What was stated unusably may hold a secret.
        hide_input_in_errors=True,
        ignored_types=(computed_once,),
    )

    name: ClassVar[str]
    """What is stated, as `{entity}.{verb}`: the type without its prefix."""
    schema_version: ClassVar[int] = 1
    clippable: ClassVar[tuple[str, ...]] = ()
    """The fields that are shortened first so that the event fits the bus, in the order in which they are."""

    time: UtcTime = Field(exclude=True)
    reported_by: Reporter = Field(exclude=True)
    traceparent: Line | None = Field(default=None, exclude=True)
    tracestate: Line | None = Field(default=None, exclude=True)

    workflow_name: Text
    workflow_version: Text
    # The run's name on this bus, from long before this package: the failure message calls it so too.
    run_id: Text = Field(alias="dagRunId")
    recipe_run_id: RecipeRunId = None
    """What the run works for; None where it was given nothing that can be one, as the cause `configuration` says."""
    truncated: Literal[True] | None = None

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return TYPE_PREFIX + self.name

    @property
    def source(self) -> str:
        """The CloudEvents source, a URI reference: `/workflows/{name}/{version}`."""
        return _source(self.workflow_name, self.workflow_version)

    @property
    def subject(self) -> str:
        """The CloudEvents subject: `{run id}`, for a task `{run id}/{task}/{attempt}`."""
        return clean_line("/".join(part for part in (self.run_id, *self._task_and_attempt) if part))

    @property
    def dataschema(self) -> str:
        """The name of the schema that the event's data follows."""
        return f"urn:dkist-processing-core:schema:{self.name}:{self.schema_version}"

    @computed_once
    def id(self) -> str:
        """
        The event's id, derived from the fact it states: reporters that never talked agree on it.

        A UUID of version 5 over `[type, workflow, version, run, task, attempt, n]`; see the vectors in `telemetry/`.
        """
        facts = [
            self.type,
            self.workflow_name,
            self.workflow_version,
            self.run_id,
            *self._task_and_attempt,
            self.number,
        ]
        return str(uuid.uuid5(ID_NAMESPACE, format_facts(facts)))

    @property
    def _task_and_attempt(self) -> tuple[str, str]:
        return ("", "")

    @property
    def number(self) -> str:
        """What distinguishes events of one type about one subject: a number or a time; "" where there is one."""
        return ""

    @property
    def run(self) -> Run:
        """The run that the event is about."""
        return Run(self.workflow_name, self.workflow_version, self.run_id, self.recipe_run_id)

    def ack(self) -> None:
        """Tell the bus that this event is dealt with. Without effect on an event that no subscription yielded."""
        acknowledge = self.__dict__.get(_ACKNOWLEDGE)
        if acknowledge is not None:
            acknowledge()

    @property
    def received_at(self) -> datetime | None:
        """When a subscription received the event, by the clock of its host; None for one that came otherwise."""
        return self.__dict__.get(_RECEIVED_AT)

    def with_acknowledgement(self, acknowledge: Callable[[], None], received_at: datetime | None = None) -> Self:
        """Return the same event, equal in everything it states, as received then, whose `ack()` calls `acknowledge`."""
        received = self.model_copy()
        received.__dict__[_ACKNOWLEDGE] = acknowledge
        received.__dict__[_RECEIVED_AT] = received_at
        return received

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the event with `redact` applied to its free text; names are no free text."""
        changes = {
            field: redacted
            for field in self._free_text
            if isinstance(text := vars(self).get(field), str) and (redacted := redact(text)) != text
        }
        return self.model_copy(update=changes) if changes else self

    _free_text: ClassVar[tuple[str, ...]] = ("message", "stack", "note", "reason", "log_url", "unit")

    def fitted(self, encoded_size: Callable[["Event"], int], limit: int = MAX_ENCODED_BYTES) -> Self:
        """
        Return the event cut until it takes at most `limit` bytes: its clippable fields first, identity never.

        What else is no identity is meant to be short; where it is not, it goes whole.
        """
        event = self
        for shorten, fields in ((_clipped, self.clippable), (_without, self._optional)):
            for field in fields:
                if encoded_size(event) <= limit:
                    return event
                event = event.model_copy(update={"truncated": True})
                event = shorten(event, field, lambda candidate: encoded_size(candidate) <= limit)
        return event

    @property
    def _optional(self) -> tuple[str, ...]:
        """The fields without which the event still names its subject and states its fact."""
        return tuple(
            name
            for name, field in type(self).model_fields.items()
            if isinstance(getattr(self, name), str | dict) and not field.is_required()
        )


@lru_cache(maxsize=64)
def _source(workflow_name: str, workflow_version: str) -> str:
    return f"/workflows/{quote(workflow_name, safe='')}/{quote(workflow_version, safe='')}"


_EventT = TypeVar("_EventT", bound=Event)
_Fits = Callable[[Event], bool]


def _clipped(event: _EventT, field: str, fits: _Fits) -> _EventT:
    def with_value(value: object) -> _EventT:
        return event.model_copy(update={field: value})

    value = getattr(event, field)
    if isinstance(value, str):
        # The end of a stack says where it happened; of everything else the beginning says most.
        return with_value(clip(value, lambda text: fits(with_value(text)), keep_end=field == "stack") or None)
    if isinstance(value, dict):
        # Of the states of tasks, those that are no success say most.
        items = sorted(value.items(), key=lambda item: item[1] == "success")
        count = bisect(range(1, len(items) + 1), 0, key=lambda length: not fits(with_value(dict(items[:length]))))
        return with_value(dict(items[:count]))
    return with_value(None)


def _without(event: _EventT, field: str, _: _Fits) -> _EventT:
    return event.model_copy(update={field: type(event).model_fields[field].get_default(call_default_factory=True)})


class WorkflowEvent(Event):
    """Something happened to a run as a whole."""


class WorkflowStarted(WorkflowEvent):
    """Signals that a run began."""

    name: ClassVar[str] = "workflow.started"
    clippable: ClassVar[tuple[str, ...]] = ("graph",)

    started_at: UtcTime | None = None
    """When the run began as the engine knows it; a run that was cleared has begun more than once."""
    graph: Graph | None = None

    @property
    def number(self) -> str:
        """What distinguishes events of one type about one subject."""
        return "" if self.started_at is None else format_time(self.started_at)


class _WorkflowEnd(WorkflowEvent):
    clippable: ClassVar[tuple[str, ...]] = ("tasks",)

    ended_at: UtcTime | None = None
    """When the run ended as the engine knows it."""
    duration_seconds: Seconds | None = None
    tasks: Annotated[dict[Text, Text], _InParts] = {}
    """The engine's state of every task, in the engine's words: `success`, `failed`, `upstream_failed`, `skipped`."""

    @property
    def number(self) -> str:
        """What distinguishes events of one type about one subject."""
        return "" if self.ended_at is None else format_time(self.ended_at)


class WorkflowFinished(_WorkflowEnd):
    """Signals that a run ended, and that the engine calls it a success."""

    name: ClassVar[str] = "workflow.finished"


class WorkflowFailed(_WorkflowEnd):
    """Signals that a run ended, and that the engine calls it a failure."""

    name: ClassVar[str] = "workflow.failed"
    clippable: ClassVar[tuple[str, ...]] = ("reason", "tasks")

    reason: Text | None = None


class TaskEvent(Event):
    """Something happened to an attempt of a task."""

    task_name: Text
    attempt: Ordinal | None = None
    """Which try, from 1; None where the reporter cannot know."""
    max_attempts: Ordinal | None = None

    @property
    def _task_and_attempt(self) -> tuple[str, str]:
        return (self.task_name, "" if self.attempt is None else str(self.attempt))


class TaskDispatched(TaskEvent):
    """Signals that an attempt reached a worker, where its environment is now prepared."""

    name: ClassVar[str] = "task.dispatched"

    queue: Text | None = None
    worker: Text | None = None
    queued_seconds: Seconds | None = None


class TaskStarted(TaskEvent):
    """Signals that the process of a task began."""

    name: ClassVar[str] = "task.started"

    host: Text | None = None
    pid: Count | None = None
    environment: Literal["built", "reused"] | None = None
    environment_seconds: Seconds | None = None


class TaskProgressed(TaskEvent):
    """Signals how far an attempt has come, in the author's words."""

    name: ClassVar[str] = "task.progressed"
    clippable: ClassVar[tuple[str, ...]] = ("note",)

    sequence: Count
    done: Number
    total: Number | None = None
    unit: Text | None = None
    note: Text | None = None

    @property
    def number(self) -> str:
        """What distinguishes events of one type about one subject."""
        return str(self.sequence)


class TaskEnd(TaskEvent):
    """An attempt ended, one way or another."""

    provisional: bool = False
    """Whether the reporter may be mistaken: the engine's word, which a task's or a launcher's outranks."""
    duration_seconds: Seconds | None = None
    cpu_seconds: Seconds | None = None
    peak_memory_bytes: Count | None = None
    phases: Annotated[dict[Text, Seconds], _InParts] = {}
    """Seconds spent in each phase that was entered: `pre_run`, `run`, `post_run`."""


class TaskFinished(TaskEnd):
    """Signals that an attempt succeeded."""

    name: ClassVar[str] = "task.finished"


class TaskFailed(TaskEnd):
    """Signals that an attempt failed."""

    name: ClassVar[str] = "task.failed"
    clippable: ClassVar[tuple[str, ...]] = ("stack", "message")

    final: bool | None = None
    """Whether no further attempt follows; None where the reporter cannot know."""
    cause: Annotated[Cause | Annotated[Text, Field(max_length=100)], Field(union_mode="left_to_right")]
    phase: Text | None = None
    error_type: Text | None = None
    message: Text | None = None
    stack: Text | None = None
    fingerprint: Text | None = None
    exit_code: Whole | None = None
    signal: Text | None = None
    log_url: Text | None = None


class TaskSkipped(TaskEnd):
    """Signals that the engine passed a task over."""

    name: ClassVar[str] = "task.skipped"
    clippable: ClassVar[tuple[str, ...]] = ("reason",)

    reason: Text | None = None


class TaskOverdue(TaskEvent):
    """Signals that neither an end nor progress was heard of for longer than the limit."""

    name: ClassVar[str] = "task.overdue"

    sequence: Count
    limit_seconds: Seconds
    last_sign_at: UtcTime | None = None

    @property
    def number(self) -> str:
        """What distinguishes events of one type about one subject."""
        return str(self.sequence)


EVENT_CLASSES: tuple[type[Event], ...] = (
    WorkflowStarted,
    WorkflowFinished,
    WorkflowFailed,
    TaskDispatched,
    TaskStarted,
    TaskProgressed,
    TaskFinished,
    TaskFailed,
    TaskSkipped,
    TaskOverdue,
)


def identity_of(subject: Run | Attempt) -> dict[str, Any]:
    """Return the fields by which an event names its run, or its attempt."""
    run = subject if isinstance(subject, Run) else subject.run
    fields: dict[str, Any] = {
        "workflow_name": run.workflow_name,
        "workflow_version": run.workflow_version,
        "run_id": run.run_id,
        "recipe_run_id": run.recipe_run_id,
    }
    if isinstance(subject, Attempt):
        fields |= {
            "task_name": subject.task_name,
            "attempt": subject.attempt,
            "max_attempts": subject.max_attempts,
        }
    return fields
