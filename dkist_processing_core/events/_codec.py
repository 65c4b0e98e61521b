"""
Events as CloudEvents 1.0: structured JSON out; structured JSON and binary mode in.

Not here: what an event states (_model), and the broker's own properties (bus).
Source: https://github.com/cloudevents/spec, JSON event format and AMQP protocol binding, both 1.0.2.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic_core
from pydantic import ValidationError

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events._model import EVENT_CLASSES, MAX_BODY_BYTES, MAX_ENCODED_BYTES, TYPE_PREFIX, Event
from dkist_processing_core.text import clean_line, show
from dkist_processing_core.trace_context import format_time

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_BY_TYPE = {TYPE_PREFIX + event_class.name: event_class for event_class in EVENT_CLASSES}
# The binding says "cloudEvents:"; "cloudEvents_" is its spelling for brokers and libraries that mangle the colon.
_BINARY_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-")
_EXTENSIONS = {"reportedby": "reportedBy", "traceparent": "traceparent", "tracestate": "tracestate"}
# What the envelope states, the data cannot.
_ENVELOPE_FIELDS = {"time", "reported_by", "reportedBy", "traceparent", "tracestate"}
_MAX_PROBLEMS = 5
_MAX_REASON = 1000
_EventT = TypeVar("_EventT", bound=Event)


def encode(event: Event) -> bytes:
    """Return the event in structured mode, as UTF-8 JSON on one line."""
    context = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        # An attribute without characters is none.
        "subject": event.subject or None,
        "time": format_time(event.time),
        "datacontenttype": "application/json",
        "dataschema": event.dataschema,
        "reportedby": event.reported_by.value,
        "traceparent": event.traceparent,
        "tracestate": event.tracestate,
    }
    head = pydantic_core.to_json({name: value for name, value in context.items() if value is not None})
    data = event.model_dump_json(by_alias=True, exclude_none=True)
    return b'%b,"data":%b}' % (head[:-1], data.encode())


def fit(event: _EventT) -> _EventT:
    """Return the event as it may travel: cut where it takes more bytes than an intermediary must carry."""
    return event.fitted(lambda candidate: len(encode(candidate)))


def encode_to_fit(event: Event) -> bytes:
    """Return the event as it may travel, encoded."""
    body = encode(event)
    return body if len(body) <= MAX_ENCODED_BYTES else encode(fit(event))


def decode(body: bytes, content_type: str | None = None, headers: Mapping[str, Any] | None = None) -> Event:
    """
    Return the event that a message carries, in structured mode or, where its headers say so, in binary mode.

    Raises
    ------
    DecodeError
        if the message is too large, no CloudEvent, none of ours, or states facts that its id does not belong to.

    """
    check_size(len(body))
    binary = _binary_attributes(headers or {})
    structured = (content_type or "").strip().lower().startswith("application/cloudevents")
    try:
        parsed = _json_object(body)
        return _build(binary, parsed) if binary and not structured else _build(parsed, parsed.get("data"))
    except RecursionError as error:
        # Raised by whoever walks down first: the parser, or a repr in a message about what it has parsed.
        raise _refusal(f"the body nests too deeply: found {show(body)}, expected an event of few levels") from error


def check_size(size: int) -> None:
    """Raise a DecodeError for a body of more bytes than a consumer reads: it takes many times its size to parse."""
    if size > MAX_BODY_BYTES:
        msg = f"the body is too large: found {size:,} bytes, expected at most {MAX_BODY_BYTES:,}"
        raise DecodeError(msg)


def _binary_attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in _BINARY_PREFIXES:
        attributes = {
            name[len(prefix) :].lower(): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in headers.items()
            if isinstance(name, str) and name.lower().startswith(prefix.lower())
        }
        if "specversion" in attributes:
            return attributes
    return {}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_number)
    except ValueError as error:
        reason = f"the body is not JSON ({type(error).__name__}: {error}): found {show(body)}, expected a JSON object"
        raise _refusal(reason) from error
    if not isinstance(value, dict):
        raise _refusal(f"the body is {_kind(value)}, expected a JSON object")
    return value


def _no_number(constant: str) -> None:
    # Python's parser takes them, RFC 8259 and every other consumer do not.
    msg = f"{constant} is no number in JSON"
    raise ValueError(msg)


def _build(attributes: Mapping[str, Any], data: object) -> Event:
    if not isinstance(data, dict):
        raise _refusal(f"the event's data is {_kind(data)}, expected a JSON object")
    if attributes.get("specversion") != "1.0":
        raise _refusal(f"specversion is {show(attributes.get('specversion'))}, expected '1.0'")
    event_type = attributes.get("type")
    event_class = _BY_TYPE.get(event_type) if isinstance(event_type, str) else None
    if event_class is None:
        raise _refusal(f"type is {show(event_type)}, expected one of {', '.join(_BY_TYPE)}")
    facts = {name: value for name, value in data.items() if name not in _ENVELOPE_FIELDS}
    facts |= {"time": attributes.get("time")}
    facts |= {field: attributes[name] for name, field in _EXTENSIONS.items() if name in attributes}
    try:
        event = event_class.model_validate(facts)
    except ValidationError as error:
        # One complaint for a field is enough, whatever else is wrong within it.
        problems = {problem["loc"][0]: problem for problem in reversed(error.errors(include_url=False))}
        wrong = [f"{field}: {_complaint(problem)}" for field, problem in reversed(problems.items())]
        raise _refusal(f"{event_class.name}: {'; '.join(wrong[:_MAX_PROBLEMS])}") from error
    if attributes.get("id") != event.id:
        raise _refusal(f"id is {show(attributes.get('id'))}, expected {event.id}, which the facts stated have")
    return event


def _complaint(problem: "ErrorDetails") -> str:
    found = "nothing" if problem["type"] == "missing" else show(problem["input"])
    return f"found {found}, but {problem['msg'].removeprefix('Value error, ')}"


def _refusal(reason: str) -> DecodeError:
    """Return the error with a reason fit for a log and for a header, whatever it quotes of a foreign message."""
    return DecodeError(clean_line(reason)[:_MAX_REASON])


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
