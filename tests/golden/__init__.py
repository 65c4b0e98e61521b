"""
What earlier releases wrote: bodies, properties and refusals, kept as data that later releases are held against.

`events.jsonl` and `refused.jsonl` are never written anew: a release that changes a line of them is a release that reads
or writes something else than the ones before.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from dkist_processing_core import events
from dkist_processing_core.events import Graph

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


def facts_of(example: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the facts that an example was made of, as keyword arguments."""
    for name, value in example["given"].items():
        yield name, from_plain(value)


def class_of(example: dict[str, Any]) -> type[events.Event]:
    """Return the class that an example is of."""
    found: type[events.Event] = getattr(events, example["class"])
    return found
