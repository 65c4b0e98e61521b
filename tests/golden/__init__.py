"""
What earlier releases wrote: bodies, properties and refusals, kept as data that later releases are held against.

Lines are appended to these files, and never changed: a release that needs another line reads or writes something else
than the releases before it. `python -m tests.golden` prints a new line for `events.jsonl`. "With every field" in the
name of an example means: with every field of release 8.0.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from dkist_processing_core import events
from dkist_processing_core.events import Graph, Resources
from dkist_processing_core.journal.message import to_message

FOLDER = Path(__file__).parent


def examples(name: str) -> list[dict[str, Any]]:
    """Return the examples of one file, a JSON object each."""
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def to_plain(value: object) -> Any:
    """Return the value of a field as JSON holds it; a time is an object, which no other field is."""
    match value:
        case datetime():
            return {"time": value.isoformat()}
        case Graph(nodes=nodes, edges=edges):
            return {"nodes": list(nodes), "edges": [list(edge) for edge in edges]}
        case Resources():
            return msgspec.to_builtins(value)
        case tuple():
            return [to_plain(item) for item in value]
        case str():
            return str(value)
    return value


def from_plain(value: Any) -> Any:
    """Return the value of a field as a constructor takes it."""
    match value:
        case {"time": str(text), **rest} if not rest:
            return datetime.fromisoformat(text)
        case {"nodes": nodes, "edges": edges}:
            return Graph(nodes=tuple(nodes), edges=tuple((start, end) for start, end in edges))
        case {"repeat": text, "times": times}:
            return text * times
        case {"names": prefix, "count": count, "each": each}:
            return {f"{prefix}{number}": each for number in range(count)}
        case {"tasks": count}:
            return Graph(nodes=tuple(f"T{number}" for number in range(count)), edges=())
    return value


def example_of(name: str, class_name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return an example of an event that is made of the given facts, as this package writes it."""
    example: dict[str, Any] = {"example": name, "class": class_name, "given": given}
    event = class_of(example)(**dict(facts_of(example)))
    message = to_message(event, "workflow.events.x", blank=str)
    example["facts"] = {field: to_plain(getattr(event, field)) for field in event.__struct_fields__}
    example |= {field: getattr(event, field) for field in ("id", "type", "source", "subject", "dataschema")}
    example["routing_key"] = message.routing_key
    return example | {"properties": json.loads(message.properties.to_json()), "body": message.body.decode()}


def facts_of(example: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the facts that an example was made of, as keyword arguments."""
    for name, value in example["given"].items():
        yield name, from_plain(value)


def class_of(example: dict[str, Any]) -> type[events.Event]:
    """Return the class that an example is of."""
    found: type[events.Event] = getattr(events, example["class"])
    return found
