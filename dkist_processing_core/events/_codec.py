"""
Events as CloudEvents 1.0: structured JSON out; structured JSON and binary mode in.

Not here: what an event states (_model), and the broker's own properties (bus).
Source: https://github.com/cloudevents/spec, JSON event format and AMQP protocol binding, both 1.0.2.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events._model import EVENT_CLASSES, TYPE_PREFIX, Event, format_time

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_BY_TYPE = {TYPE_PREFIX + event_class.name: event_class for event_class in EVENT_CLASSES}
# The binding says "cloudEvents:"; "cloudEvents_" is its spelling for brokers and libraries that mangle the colon.
_BINARY_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-")
_EXTENSIONS = {"reportedby": "reported_by", "traceparent": "traceparent", "tracestate": "tracestate"}
# What the envelope states, the data cannot.
_ENVELOPE_FIELDS = {"time", "reported_by", "reportedBy", "traceparent", "tracestate"}
_SHOWN = 200


def encode(event: Event) -> bytes:
    """Return the event in structured mode, as UTF-8 JSON on one line."""
    context = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": format_time(event.time),
        "datacontenttype": "application/json",
        "dataschema": event.dataschema,
        "reportedby": event.reported_by.value,
        "traceparent": event.traceparent,
        "tracestate": event.tracestate,
    }
    head = json.dumps(
        {name: value for name, value in context.items() if value is not None},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    data = event.model_dump_json(by_alias=True, exclude_none=True)
    return f'{head[:-1]},"data":{data}}}'.encode()


def fit(event: Event) -> Event:
    """Return the event as it may travel: cut where it takes more bytes than an intermediary must carry."""
    return event.fitted(lambda candidate: len(encode(candidate)))


def decode(body: bytes, content_type: str | None = None, headers: Mapping[str, Any] | None = None) -> Event:
    """
    Return the event that a message carries, in structured mode or, where its headers say so, in binary mode.

    Raises
    ------
    DecodeError
        if the message is no CloudEvent, none of ours, or states facts that its id does not belong to.

    """
    binary = _binary_attributes(headers or {})
    structured = (content_type or "").strip().lower().startswith("application/cloudevents")
    if binary and not structured:
        attributes, data = binary, _json_object(body, "the body")
    else:
        attributes = _json_object(body, "the body")
        found = attributes.get("data")
        if not isinstance(found, dict):
            msg = f"the event's data is {_kind(found)}, expected a JSON object"
            raise DecodeError(msg)
        data = found
    return _build(attributes, data)


def _binary_attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in _BINARY_PREFIXES:
        attributes = {
            name.removeprefix(prefix).lower(): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in headers.items()
            if isinstance(name, str) and name.startswith(prefix)
        }
        if "specversion" in attributes:
            return attributes
    return {}


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"{what} is not JSON ({error.__class__.__name__}: {error})"
        raise DecodeError(msg[:_SHOWN]) from error
    if not isinstance(value, dict):
        msg = f"{what} is {_kind(value)}, expected a JSON object"
        raise DecodeError(msg)
    return value


def _build(attributes: Mapping[str, Any], data: dict[str, Any]) -> Event:
    if attributes.get("specversion") != "1.0":
        msg = f"specversion is {_shown(attributes.get('specversion'))}, expected '1.0'"
        raise DecodeError(msg)
    event_type = attributes.get("type")
    event_class = _BY_TYPE.get(event_type) if isinstance(event_type, str) else None
    if event_class is None:
        msg = f"type is {_shown(event_type)}, expected one of {', '.join(_BY_TYPE)}"
        raise DecodeError(msg)
    facts = {name: value for name, value in data.items() if name not in _ENVELOPE_FIELDS}
    facts |= {"time": attributes.get("time")}
    facts |= {field: attributes[name] for name, field in _EXTENSIONS.items() if name in attributes}
    try:
        event = event_class.model_validate(facts)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()[:5]
        )
        msg = f"{event_class.name}: {wrong}"
        raise DecodeError(msg) from error
    if attributes.get("id") != event.id:
        msg = f"id is {_shown(attributes.get('id'))}, but the facts stated have the id {event.id}"
        raise DecodeError(msg)
    return event


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
