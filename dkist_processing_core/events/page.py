"""
The tables of the page that documents the events, generated from the event classes.

    python -m dkist_processing_core.events.page docs/reference/events.md

Writes the first sentence and the table of fields of each section, and adds the section of a new event with an example.
The rest of the page does not change. Not here: the JSON Schemas (schema).
"""

import inspect
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.inspect import Field

from dkist_processing_core.events._kinds import Reporter
from dkist_processing_core.events._resources import Resources
from dkist_processing_core.events.codec import encode
from dkist_processing_core.events.event import Event
from dkist_processing_core.events.facts import EVENT_CLASSES, TaskEnd, TaskEvent
from dkist_processing_core.events.schema import field_schema, fields

# The sections about fields that several events share, or the objects in their fields.
SHARED: dict[str, type[msgspec.Struct]] = {
    "Every event": Event,
    "Every event of a task": TaskEvent,
    "Every end of an attempt": TaskEnd,
    "Resources": Resources,
}
_TABLE = re.compile(r"^\| field \| type \| meaning \|\n\|[-|]+\|\n(?:\|.*\n)*", re.MULTILINE)
_WORDS = {
    "string": "text",
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "object": "object",
    "Cause": "text",
    "Graph": "object",
    "Resources": "object",
    "array": "array",
}
_SAMPLES: dict[str, Any] = {
    "time": datetime(2026, 11, 22, 9, tzinfo=UTC),
    "text": "text",
    "boolean": True,
    "integer": 1,
    "number": 1,
    "object": {},
}


def page(text: str) -> str:
    """Return the page with new tables."""
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    known: dict[str, type[msgspec.Struct]] = {f"## {title}": each for title, each in SHARED.items()} | _titled()
    found = [_section(section, known.get(section.partition("\n")[0])) for section in sections]
    new = [each for title, each in _titled().items() if not any(part.startswith(f"{title}\n") for part in sections)]
    return "".join([*found, *map(_new_section, new)])


def _titled() -> dict[str, type[Event]]:
    return {f"## `{event_class.name}`": event_class for event_class in EVENT_CLASSES}


def _section(section: str, kind: type[msgspec.Struct] | None) -> str:
    if kind is None:
        return section
    made, count = _TABLE.subn(lambda _: table(kind), section, count=1)
    if issubclass(kind, Event) and kind in EVENT_CLASSES:
        title, _, rest = made.partition("\n\n")
        head = [title, _meaning(kind)]
        if not count and _rows(kind):
            head.append(table(kind).rstrip("\n"))
        made = "\n\n".join([*head, rest.partition("\n\n")[2]])
    return made


def _meaning(event_class: type[Event]) -> str:
    return str(inspect.getdoc(event_class))


def table(kind: type[msgspec.Struct]) -> str:
    """Return the table of the fields that no shared section lists; for a shared class, of its declared fields."""
    return "".join(["| field | type | meaning |\n", "|---|---|---|\n", *_rows(kind)])


def _rows(kind: type[msgspec.Struct]) -> list[str]:
    others = [each for each in SHARED.values() if each is not kind and issubclass(kind, each)]
    shared = {field.name for each in others for field in fields(each)}
    return [_row(field) for field in fields(kind) if field.name not in shared]


def _row(field: Field) -> str:
    made = field_schema(field, {})
    always = ", always" if field.required else ""
    return f"| `{field.encode_name}` | {kind_of(made)}{always} | {made['description']} |\n"


def kind_of(field: dict[str, Any]) -> str:
    """Return the type of a field of a schema, in the terms of the page."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(kind_of(part) for part in field["anyOf"]))
    if field.get("format") == "date-time":
        return "time"
    return _WORDS[field["$ref"].rpartition("/")[2] if "$ref" in field else field["type"]]


def _new_section(event_class: type[Event]) -> str:
    example = json.dumps(json.loads(encode(_sample(event_class))), indent=2)
    return f"\n## `{event_class.name}`\n\n{_meaning(event_class)}\n\n{table(event_class)}\n```json\n{example}\n```\n"


def _sample(event_class: type[Event]) -> Event:
    """Return an event with a value in each required field."""
    required = {
        field.name: _SAMPLES[kind_of(field_schema(field, {})).partition(" ")[0]]
        for field in fields(event_class)
        if field.required
    }
    identity = {
        "workflow_name": "l0_to_l1_visp",
        "workflow_version": "2.16.3",
        "run_id": "manual__2026-11-22T09:00:00+00:00",
    }
    return event_class(time=_SAMPLES["time"], reported_by=Reporter.TASK, **required | identity)


def main(path: str) -> None:
    """Rewrite the page at a path."""
    file = Path(path)
    file.write_text(page(file.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
