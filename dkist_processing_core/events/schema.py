"""
The JSON Schema of the data of each event and of a notice, generated from their classes.

    python -m dkist_processing_core.events.schema telemetry/schemas

Not here: the checking of events, which the classes do themselves.
"""

import inspect as python
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from dkist_processing_core.events._kinds import MAX_CAUSE, Cause
from dkist_processing_core.events.event import ENVELOPE_FIELDS, Event
from dkist_processing_core.events.facts import EVENT_CLASSES
from dkist_processing_core.events.notice import NoticeIssued

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# No bus carries a notice, but its receivers get it as a CloudEvent whose `dataschema` names a schema.
DESCRIBED: tuple[type[Event], ...] = (*EVENT_CLASSES, NoticeIssued)
"""The classes that have a file."""


def schema(event_class: type[Event]) -> dict[str, Any]:
    """Return the schema of the `data` of an event; the CloudEvents specification defines the attributes around it."""
    definitions: dict[str, Any] = {}
    stated = fields(event_class)
    return {
        "$schema": DIALECT,
        "$id": f"urn:dkist-processing-core:schema:{event_class.name}:{event_class.schema_version}",
        "title": event_class.name,
        "description": python.getdoc(event_class),
        "type": "object",
        "properties": {field.encode_name: field_schema(field, definitions) for field in stated},
        "required": [field.encode_name for field in stated if field.required],
    } | ({"$defs": definitions} if definitions else {})


def fields(kind: type[msgspec.Struct]) -> list[inspect.Field]:
    """Return the fields in the data of an event, of the events of a base class, or of an object in an event."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return [field for field in info.fields if field.name not in ENVELOPE_FIELDS]


def field_schema(field: inspect.Field, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one field, with its meaning; schemas of the classes that it names go to `definitions`."""
    return _schema(field.type, definitions)


def file_name(event_class: type[Event]) -> str:
    """Return the name of the schema's file."""
    return f"{event_class.name}.v{event_class.schema_version}.json"


def text_of(event_class: type[Event]) -> str:
    """Return the text of the schema's file."""
    return json.dumps(schema(event_class), indent=2) + "\n"


def _schema(  # noqa: C901, PLR0911, PLR0912 - a table of the kinds, a line each
    info: inspect.Type, definitions: dict[str, Any]
) -> dict[str, Any]:
    """Return the schema of a value, without null: a field that states nothing is left out of an event."""
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=more):
            return (more or {}) | _schema(inner, definitions)
        case inspect.UnionType(types=types):
            each = [_schema(kind, definitions) for kind in types if kind != inspect.NoneType()]
            return each[0] if len(each) == 1 else {"anyOf": each}
        case inspect.IntType(ge=least, le=most):
            return {"maximum": most, "minimum": least, "type": "integer"}
        case inspect.FloatType(ge=least):
            return ({"minimum": 0} if least == 0 else {}) | {"type": "number"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.DateTimeType():
            return {"format": "date-time", "type": "string"}
        case inspect.EnumType(cls=kind) if kind is Cause:
            # A later release may know causes that are not listed.
            return {"anyOf": [_definition(info, definitions), {"maxLength": MAX_CAUSE, "type": "string"}]}
        case inspect.EnumType():
            return _definition(info, definitions)
        case inspect.LiteralType(values=values):
            return {"enum": list(values), "type": "string"}
        case inspect.DictType(value_type=value):
            return {"additionalProperties": _schema(value, definitions), "type": "object"}
        case inspect.VarTupleType(item_type=item, max_length=most):
            return {"items": _schema(item, definitions)} | ({"maxItems": most} if most else {}) | {"type": "array"}
        case inspect.TupleType(item_types=items):
            count = len(items)
            each = [_schema(item, definitions) for item in items]
            return {"maxItems": count, "minItems": count, "prefixItems": each, "type": "array"}
        case inspect.StructType():
            return _definition(info, definitions)
    return {"type": "string"}


def _definition(info: inspect.EnumType | inspect.StructType, definitions: dict[str, Any]) -> dict[str, Any]:
    """Define a class once, and return the reference to it."""
    described = {"description": python.getdoc(info.cls)}
    if isinstance(info, inspect.EnumType):
        definitions[info.cls.__name__] = described | {"enum": [member.value for member in info.cls], "type": "string"}
    else:
        properties = {field.encode_name: _schema(field.type, definitions) for field in info.fields}
        required = [field.encode_name for field in info.fields if field.required]
        definitions[info.cls.__name__] = described | {"properties": properties, "required": required, "type": "object"}
    return {"$ref": f"#/$defs/{info.cls.__name__}"}


def main(folder: str) -> None:
    """Write each schema into a folder."""
    for event_class in DESCRIBED:
        (Path(folder) / file_name(event_class)).write_text(text_of(event_class))


if __name__ == "__main__":
    main(*sys.argv[1:])
