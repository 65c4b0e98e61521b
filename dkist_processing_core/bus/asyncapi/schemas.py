"""
The schemas of message bodies in the dialect of AsyncAPI 3.0, which is that of JSON Schema draft 7.

Not here: the schemas of the events' data, which are converted here (events.schema), and the document (document).
"""

import inspect
from typing import Any

from msgspec.inspect import Field, StructType, type_info

from dkist_processing_core.events import EVENT_CLASSES, TYPE_PREFIX, Event, RecipeRunFailureMessage
from dkist_processing_core.events.event import ENVELOPE_FIELDS
from dkist_processing_core.events.schema import field_schema, schema

_PLACE = "#/components/schemas/"
_OPTIONAL_ATTRIBUTES = {"subject", "traceparent", "tracestate"}


def all_schemas() -> dict[str, Any]:
    """Return the schemas that messages refer to, by name: the data of each event, and the classes that it uses."""
    named: dict[str, Any] = {}
    for event_class in EVENT_CLASSES:
        made = schema(event_class)
        # A schema with its own id would change the meaning of the references inside it.
        del made["$schema"], made["$id"]
        named |= made.pop("$defs", {})
        named[event_class.name] = made
    _envelope_fields(named)
    named["failureMessage"] = failure_body()
    return {name: to_draft_7(made) for name, made in sorted(named.items())}


def reference_to(name: str) -> dict[str, str]:
    """Return the reference to one of the schemas."""
    return {"$ref": _PLACE + name}


def cloudevent(event_class: type[Event]) -> dict[str, Any]:
    """Return the schema of an event's body: the attributes of a CloudEvent in structured mode, and its data."""
    fields = _envelope_fields({})
    attributes = {
        "specversion": {"const": "1.0", "description": "The version of CloudEvents."},
        "id": {"format": "uuid", "description": _meaning(Event.id)},
        "source": {"format": "uri-reference", "description": _meaning(Event.source)},
        "type": {"const": TYPE_PREFIX + event_class.name, "description": _meaning(Event.type)},
        "subject": {"description": _meaning(Event.subject)},
        "time": fields["time"],
        "datacontenttype": {"const": "application/json", "description": "The media type of `data`."},
        "dataschema": {"const": schema(event_class)["$id"], "description": _meaning(Event.dataschema)},
        "reportedby": fields["reported_by"],
        "traceparent": fields["traceparent"],
        "tracestate": fields["tracestate"],
    }
    properties = {name: {"type": "string"} | made for name, made in attributes.items()}
    return {
        "type": "object",
        "required": [name for name in (*properties, "data") if name not in _OPTIONAL_ATTRIBUTES],
        "properties": {name: to_draft_7(made) for name, made in properties.items()}
        | {"data": reference_to(event_class.name)},
    }


def failure_body() -> dict[str, Any]:
    """Return the schema of the body of the failure message, which states a missing value as null."""
    properties = {}
    for field in _fields(RecipeRunFailureMessage):
        made = field_schema(field, {})
        # The body does not contain the number of clears.
        if field.name != "clears":
            properties[field.encode_name] = made | ({"type": ["string", "null"]} if field.default is None else {})
    return {"type": "object", "required": list(properties), "properties": properties}


def to_draft_7(made: Any) -> Any:
    """
    Return a schema of JSON Schema 2020-12 in draft 7.

    Draft 7 has other names for definitions and for the items of a tuple, and ignores what stands beside a reference.

    >>> to_draft_7({"description": "Why.", "$ref": "#/$defs/Cause"})
    {'description': 'Why.', 'allOf': [{'$ref': '#/components/schemas/Cause'}]}
    >>> to_draft_7({"type": "array", "prefixItems": [{"type": "string"}], "maxItems": 1})
    {'type': 'array', 'items': [{'type': 'string'}], 'maxItems': 1}
    """
    if isinstance(made, list):
        return [to_draft_7(each) for each in made]
    if not isinstance(made, dict):
        return made
    if "$ref" in made:
        reference = reference_to(made["$ref"].rpartition("/")[2])
        beside = {name: value for name, value in made.items() if name not in {"$ref", "type"}}
        return beside | {"allOf": [reference]} if beside else reference
    return {"items" if name == "prefixItems" else name: to_draft_7(each) for name, each in made.items()}


def _envelope_fields(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of the attributes that are fields of an event; classes that they name go to `definitions`."""
    return {each.name: field_schema(each, definitions) for each in _fields(Event) if each.name in ENVELOPE_FIELDS}


def _fields(kind: type[object]) -> tuple[Field, ...]:
    info = type_info(kind)
    assert isinstance(info, StructType)
    return info.fields


def _meaning(attribute: object) -> str:
    """Return the first sentence about an attribute."""
    return (inspect.getdoc(attribute) or "").partition("\n\n")[0]
