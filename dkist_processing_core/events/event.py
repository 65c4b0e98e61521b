"""
The common attributes of all events: the common fields, the attributes derived from them, and the shorter forms.

Not here: the events themselves (facts), the check of their values (_checks), shortening one (_cutting), and their
form on the wire (codec).
"""

import copy
import hashlib
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Annotated, ClassVar, Self
from urllib.parse import quote

import msgspec

from dkist_processing_core.events import _checks
from dkist_processing_core.events._cutting import limited, shortened, size_of
from dkist_processing_core.events._kinds import Count, Line, Reporter, UtcTime, about, prepare
from dkist_processing_core.identity import Run
from dkist_processing_core.text import clean_line

TYPE_PREFIX = "edu.nso.dkist."
ID_NAMESPACE = uuid.UUID("833a4626-3965-5ef6-86cd-1e4e2a0d402a")
_NAMESPACE_DIGEST = hashlib.sha1(ID_NAMESPACE.bytes, usedforsecurity=False)
_VARIANTS = {f"{digit:x}": f"{digit & 0b0011 | 0b1000:x}" for digit in range(16)}
MAX_ENCODED_BYTES = 64 * 1024
"""The size that an intermediary must carry, by the CloudEvents specification 1.0.2, "Size Limits"."""
# The attributes of the envelope, which are not part of an event's data.
ENVELOPE_FIELDS = ("time", "reported_by", "traceparent", "tracestate")
_ACKNOWLEDGE, _RECEIVED_AT, _ID = "_acknowledge", "_received_at", "_id"
_encode_identity = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True, kw_only=True, dict=True, rename="camel"):
    """
    An occurrence in a run, complete in itself: who, what, when, and the trace it belongs to.

    Its text is cleaned on construction: control characters but newline and tab, and lone surrogates, become U+FFFD.

    Raises:
        EventError: A field has an unusable value; the message names the field and the expectation.
    """

    name: ClassVar[str]
    """The kind of occurrence, as `{entity}.{verb}`: the type without its prefix."""
    schema_version: ClassVar[int] = 1

    time: Annotated[UtcTime, about("The time of the report.")]
    reported_by: Annotated[Reporter, about("The kind of process that reported it.")]
    traceparent: Annotated[Line | None, about("The span that it belongs to, in the form of W3C Trace Context.")] = None
    tracestate: Annotated[Line | None, about("Values that tracing systems add to it.")] = None

    workflow_name: Annotated[str, about("The name of the workflow.")]
    workflow_version: Annotated[str, about("The version of the workflow.")]
    # The name of the run's id on this bus, older than this package: the failure message also uses it.
    run_id: Annotated[str, about("The run's id, as the engine names it.")] = msgspec.field(name="dagRunId")
    recipe_run_id: Annotated[
        Count | None,
        about("The recipe run that the run processes; omitted if the run was started without a valid one."),
    ] = None
    truncated: Annotated[
        bool | None,
        about("True if the event was cut to its limits; else omitted."),
        msgspec.Meta(extra_json_schema={"const": True}),
    ] = None

    def __post_init__(self) -> None:
        """Check the values, and clean the text."""
        _checks.check(self)

    def __copy__(self) -> Self:
        """Return an equal event with the same acknowledgement."""
        copied: Self = super().__copy__()  # type: ignore[misc] # msgspec declares it nowhere
        copied.__dict__.update(self.__dict__)
        return copied

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
        return clean_line("/".join([part for part in (self.run_id, *self._task_and_attempt) if part]))

    @property
    def dataschema(self) -> str:
        """The name of the schema that the event's data follows."""
        return f"urn:dkist-processing-core:schema:{self.name}:{self.schema_version}"

    @property
    def id(self) -> str:
        """
        The event's id, derived from the occurrence: independent reporters derive the same one.

        A UUID of version 5 over `[type, workflow, version, run, task, attempt, n]`; see the vectors in `telemetry/`.
        """
        known: str | None = self.__dict__.get(_ID)
        if known is None:
            identity = (
                TYPE_PREFIX + self.name,
                self.workflow_name,
                self.workflow_version,
                self.run_id,
                *self._task_and_attempt,
                self.number,
            )
            known = self.__dict__[_ID] = _uuid5(_encode_identity(identity))
        return known

    @property
    def _task_and_attempt(self) -> tuple[str, str]:
        return ("", "")

    @property
    def number(self) -> str:
        """A sequence number or a time, to distinguish events of one type about one subject; "" if there is only one."""
        return ""

    @property
    def run(self) -> Run:
        """The run that the event is about."""
        return Run(self.workflow_name, self.workflow_version, self.run_id, self.recipe_run_id)

    def ack(self) -> None:
        """Acknowledge the event to the bus. Has no effect on an event that no subscription yielded."""
        acknowledge = self.__dict__.get(_ACKNOWLEDGE)
        if acknowledge is not None:
            acknowledge()

    @property
    def received_at(self) -> datetime | None:
        """When a subscription received the event, by the clock of its host; None for any other event."""
        return self.__dict__.get(_RECEIVED_AT)

    def with_acknowledgement(self, acknowledge: Callable[[], None], received_at: datetime | None = None) -> Self:
        """Return an equal event that was received at `received_at`, and whose `ack()` calls `acknowledge`."""
        received = copy.copy(self)
        # These are no fields: two events are equal if they state the same facts.
        received.__dict__.update({_ACKNOWLEDGE: acknowledge, _RECEIVED_AT: received_at})
        return received

    def _changed(self, changes: Mapping[str, object]) -> Self:
        """Return the event with other values in some fields; its id must not depend on these fields."""
        changed = msgspec.structs.replace(self, **changes)
        changed.__dict__.update(self.__dict__)
        return changed

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the event with `redact` applied to its free text; names are not free text."""
        changes = {
            field: redacted
            for field in _checks.form_of(type(self)).free_text
            if (redacted := _checks.redacted(before := getattr(self, field), redact)) != before
        }
        return self._changed(changes) if changes else self

    def within_limits(self) -> Self:
        """Return the event with each field shortened that takes more bytes than its own limit."""
        changes = self._over_limits()
        return self._changed(changes) if changes else self

    def _over_limits(self) -> dict[str, object]:
        form = _checks.form_of(type(self))
        changes: dict[str, object] = {}
        for field, limit in form.limits.items():
            value = getattr(self, field)
            if value is not None and size_of(value) > limit:
                cuts = [cut for cut, name in form.cuts if name == field]
                changes |= {"truncated": True, field: limited(value, limit, cuts)}
        return changes

    def fitted(self, encoded_size: Callable[["Event"], int], limit: int = MAX_ENCODED_BYTES) -> Self:
        """
        Return the event cut until it takes at most `limit` bytes: its clippable fields first, its identity never.

        All other fields that are not part of the identity are meant to be short; one that is not is left out
        completely.
        """
        form, changes = _checks.form_of(type(self)), self._over_limits()

        def fits(**further: object) -> bool:
            return encoded_size(self._changed(changes | further)) <= limit

        def fits_with(field: str, value: object) -> bool:
            return fits(**{field: value})

        if fits():
            return self._changed(changes) if changes else self
        changes["truncated"] = True
        for cut, field in form.cuts:
            if not fits():
                value = changes.get(field, getattr(self, field))
                changes[field] = shortened(value, cut, partial(fits_with, field))
        for field in form.optional:
            if not fits():
                changes[field] = form.defaults[field]
        return self._changed(changes)


@lru_cache(maxsize=64)
def _source(workflow_name: str, workflow_version: str) -> str:
    return f"/workflows/{quote(workflow_name, safe='')}/{quote(workflow_version, safe='')}"


def _uuid5(name: bytes) -> str:
    """Return the result of `uuid.uuid5` for a name in our namespace, as text (RFC 9562, section 5.5)."""
    digest = _NAMESPACE_DIGEST.copy()
    digest.update(name)
    text = digest.hexdigest()
    # The version, and the two bits of the variant.
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:32]}"


class Graph(msgspec.Struct, frozen=True, weakref=True):
    """The nodes of a workflow in dependency order, and its edges from upstream to downstream."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Check the values, and clean the text."""
        _checks.check(self)


prepare(Graph)
