"""
Events as CloudEvents 1.0: structured JSON out; structured JSON and binary mode in.

Not here: the content of an event (facts), and the broker's own properties (bus).
Source: https://github.com/cloudevents/spec, JSON event format and AMQP protocol binding, both 1.0.2.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from dkist_processing_core.errors import DecodeError, EventError, UnknownEventError
from dkist_processing_core.events._checks import emptied, filled, form_of, read
from dkist_processing_core.events._kinds import Reporter
from dkist_processing_core.events.event import ENVELOPE_FIELDS, MAX_ENCODED_BYTES, TYPE_PREFIX, Event
from dkist_processing_core.events.facts import EVENT_CLASSES
from dkist_processing_core.identity.trace_context import format_time
from dkist_processing_core.text import clean_line, show

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
MAX_BODY_BYTES = 1024 * 1024
"""The most that a consumer reads of one message, far above the size of an event."""
_BY_TYPE = {TYPE_PREFIX + event_class.name: event_class for event_class in EVENT_CLASSES}
# The binding uses "cloudEvents:"; "cloudEvents_" is its spelling for brokers and libraries that mangle the colon.
_BINARY_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-")
_LOWER_PREFIXES = tuple(map(str.lower, _BINARY_PREFIXES))
# The attributes of a CloudEvent that are fields of an event.
_ATTRIBUTES = {"time": "time", "reportedby": "reported_by", "traceparent": "traceparent", "tracestate": "tracestate"}
# Names under our prefix, the form of all types, including those that newer releases add.
_TYPE = re.compile(re.escape(TYPE_PREFIX) + r"(?=.{1,100}\Z)[a-z0-9_]+(?:\.[a-z0-9_]+)+")
_SPEC_VERSION = "1.0"
_MAX_REASON = 1000
_EventT = TypeVar("_EventT", bound=Event)
_to_json = msgspec.json.Encoder().encode


class _Envelope(msgspec.Struct, kw_only=True, gc=False):
    specversion: str
    id: str
    time: str
    reportedby: Reporter
    traceparent: str | None = None
    tracestate: str | None = None


class WireForm:
    """How events of one class are written and read."""

    def __init__(self, event_class: type[Event]) -> None:
        """Derive the form from the declarations of the class."""
        form = form_of(event_class)
        self.names = [name for name in form.types if name not in ENVELOPE_FIELDS]
        self.wire_names = [form.wire_names[name] for name in self.names]
        self.values_of = attrgetter(*self.names)
        self.times = [name for name in form.times if name in self.names]
        # Python cuts parts of a microsecond, as all our readers did; msgspec would round them.
        types = {**form.types, **dict.fromkeys(self.times, str | None)}
        fields: list[Any] = [
            (name, types[name], *([form.defaults[name]] if name in form.defaults else [])) for name in self.names
        ]
        data = msgspec.defstruct(event_class.__name__, fields, rename=form.wire_names.get, kw_only=True, gc=False)
        message = msgspec.defstruct("Message", [("data", data)], bases=(_Envelope,), kw_only=True, gc=False)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(message).decode
        self._event_class = event_class
        self._empty: Event | None = None

    def event_of(self, message: Any, *, is_clean: bool) -> Event:
        """
        Return the event of a decoded message.

        Args:
            message: The result of `decode`.
            is_clean: Whether its texts need no cleaning. Then its values are not checked a second time.
        """
        facts = msgspec.structs.asdict(message.data)
        facts["time"], facts["reported_by"] = message.time, message.reportedby
        facts["traceparent"], facts["tracestate"] = message.traceparent, message.tracestate
        for name in ("time", *self.times):
            if (moment := facts[name]) is not None:
                facts[name] = moment = datetime.fromisoformat(moment)
                is_clean = is_clean and moment.tzinfo is UTC
        if self._empty is not None and is_clean and False not in (facts["truncated"], facts.get("withdrawn")):
            return filled(self._empty, facts)
        event = self._event_class(**facts)
        if self._empty is None:
            # Of no event in particular, and without its texts.
            self._empty = emptied(event, facts)
        return event


wire_form_of = cache(WireForm)


class _TypeOnly(msgspec.Struct, gc=False):
    type: str


_type_of = msgspec.json.Decoder(_TypeOnly).decode


def data_of(event: Event) -> dict[str, Any]:
    """Return the data of an event as in its JSON: by the names on the wire, without fields that it does not state."""
    data: dict[str, Any] = msgspec.json.decode(_to_json(_data_of(event)))
    return data


def _data_of(event: Event) -> dict[str, Any]:
    form = wire_form_of(type(event))
    values = zip(form.wire_names, form.values_of(event), strict=True)
    data = {name: value for name, value in values if value is not None}
    for name in form.times:
        moment = getattr(event, name)
        if moment is not None:
            data[form.wire_names[form.names.index(name)]] = _to_encode(moment)
    return data


def _to_encode(moment: datetime) -> datetime | str:
    """Return an event's time in a form whose JSON is that of `format_time`; msgspec's takes a tenth of the time."""
    # msgspec leaves out microseconds that are 0, and encodes no subclass.
    return moment if moment.microsecond and type(moment) is datetime else format_time(moment)


def encode(event: Event) -> bytes:
    """Return the event in structured mode, as UTF-8 JSON on one line."""
    context: dict[str, object] = {
        "specversion": _SPEC_VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
    }
    # An attribute without characters counts as absent.
    if subject := event.subject:
        context["subject"] = subject
    context["time"] = _to_encode(event.time)
    context["datacontenttype"] = "application/json"
    context["dataschema"] = event.dataschema
    context["reportedby"] = event.reported_by
    if event.traceparent is not None:
        context["traceparent"] = event.traceparent
    if event.tracestate is not None:
        context["tracestate"] = event.tracestate
    context["data"] = _data_of(event)
    return _to_json(context)


def fit(event: _EventT) -> _EventT:
    """Return the event in a size that can be sent: cut if it takes more bytes than an intermediary must carry."""
    return event.fitted(lambda candidate: len(encode(candidate)))


def encode_to_fit(event: Event) -> bytes:
    """Return the encoded event in a size that can be sent, cut if necessary."""
    event = event.within_limits()
    body = encode(event)
    return body if len(body) <= MAX_ENCODED_BYTES else encode(fit(event))


def decode(body: bytes, content_type: str | None = None, headers: Mapping[str, Any] | None = None) -> Event:
    """
    Return the event that a message carries, in structured mode or, if its headers show that, in binary mode.

    Raises:
        UnknownEventError: The message carries an event of ours of a type that this release does not know.
        DecodeError: The message is too large, no CloudEvent, no event of ours, or its id does not match its facts.
    """
    check_size(len(body))
    found = attribute_headers(content_type, headers)
    binary = _binary_attributes(found) if found else {}
    if not binary:
        event = _decode_quickly(body)
        if event is not None:
            return event
    return _decode_slowly(body, binary)


def _decode_slowly(body: bytes, binary: Mapping[str, Any]) -> Event:
    """Return the event of any publisher, with the attributes of binary mode; raise a DecodeError with the reason."""
    try:
        parsed = _json_object(body)
        return _build(binary, parsed) if binary else _build(parsed, parsed.get("data"))
    except RecursionError as error:
        # The first code that descends raises it: the parser, or a repr of the parsed value in an error message.
        raise _refusal(f"the body nests too deeply: found {show(body)}, expected an event of few levels") from error


def _decode_quickly(body: bytes) -> Event | None:
    """Return the event in structured mode as our publishers write it, or None for any other body."""
    try:
        # msgspec does not check whether the parts that it skips are UTF-8.
        body.isascii() or body.decode()
        event_class = _BY_TYPE.get(_type_of(body).type)
        if event_class is None:
            return None
        form = wire_form_of(event_class)
        message = form.decode(body)
        event = form.event_of(message, is_clean=_has_clean_texts(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return event if message.specversion == _SPEC_VERSION and message.id == event.id else None


def _has_clean_texts(body: bytes) -> bool:
    """Return True if all texts of a JSON document are of printable ASCII: most are, and this check is quick."""
    # JSON permits no control character but DEL without an escape.
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


def check_size(size: int) -> None:
    """Raise a DecodeError for a body of more bytes than a consumer reads: parsing takes many times its size."""
    if size > MAX_BODY_BYTES:
        msg = f"the body is too large: found {size:,} bytes, expected at most {MAX_BODY_BYTES:,}"
        raise DecodeError(msg)


def attribute_headers(content_type: str | None, headers: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return those headers of a message that hold attributes of an event, in binary mode; in structured mode, none."""
    # The first comparison is the content type that our publishers write.
    if not headers or content_type == CONTENT_TYPE or _is_structured(content_type or ""):
        return {}
    return {
        name: value
        for name, value in headers.items()
        if isinstance(name, str) and name.lower().startswith(_LOWER_PREFIXES)
    }


def _is_structured(content_type: str) -> bool:
    return content_type.strip().lower().startswith("application/cloudevents")


def _binary_attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in _BINARY_PREFIXES:
        attributes = {
            name[len(prefix) :].lower(): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in headers.items()
            if name.lower().startswith(prefix.lower())
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
    # Python's parser accepts these constants; RFC 8259 and every other consumer do not.
    msg = f"{constant} is no number in JSON"
    raise ValueError(msg)


def _build(attributes: Mapping[str, Any], data: object) -> Event:
    event_type = attributes.get("type")
    event_class = _BY_TYPE.get(event_type) if isinstance(event_type, str) else None
    known = f"type is {show(event_type)}, expected one of {', '.join(_BY_TYPE)}"
    if event_class is None and isinstance(event_type, str) and _TYPE.fullmatch(event_type):
        raise UnknownEventError(clean_line(known)[:_MAX_REASON])
    if not isinstance(data, dict):
        raise _refusal(f"the event's data is {_kind(data)}, expected a JSON object")
    if attributes.get("specversion") != _SPEC_VERSION:
        raise _refusal(f"specversion is {show(attributes.get('specversion'))}, expected {_SPEC_VERSION!r}")
    if event_class is None:
        raise _refusal(known)
    form = form_of(event_class)
    fields = [name for name in form.types if name not in ENVELOPE_FIELDS]
    facts = {name: data[form.wire_names[name]] for name in fields if form.wire_names[name] in data}
    facts |= {field: attributes[name] for name, field in _ATTRIBUTES.items() if name in attributes}
    try:
        event = event_class(**read(event_class, facts))
    except EventError as error:
        raise _refusal(f"{event_class.name}: {error.with_values}") from error
    if attributes.get("id") != event.id:
        raise _refusal(f"id is {show(attributes.get('id'))}, expected {event.id}, which the facts stated have")
    return event


def _refusal(reason: str) -> DecodeError:
    """Return the error with a reason that is safe in a log and a header, even if it quotes a foreign message."""
    return DecodeError(clean_line(reason)[:_MAX_REASON])


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
