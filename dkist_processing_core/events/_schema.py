"""
The JSON Schema of what each event states, made from the event classes.

    python -m dkist_processing_core.events._schema telemetry/schemas

Not here: the checking of events, which the classes do themselves.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dkist_processing_core.events._model import EVENT_CLASSES, Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MEANINGS = {
    "workflowName": "The name of the workflow.",
    "workflowVersion": "The version of the workflow.",
    "dagRunId": "The run's id, as the engine has it.",
    "recipeRunId": "The recipe run that the run works for; left out where it was given nothing that can be one.",
    "truncated": "True where text was cut so that the event fits the bus; else left out.",
    "startedAt": "When the run began, as the engine knows it.",
    "endedAt": "When the run ended, as the engine knows it.",
    "graph": "The tasks in dependency order, and the edges from upstream to downstream.",
    "tasks": "The engine's state of every task, in the engine's words.",
    "reason": "Why, in the engine's words.",
    "taskName": "The name of the task; an instance of a mapped task is named as in `Name[3]`.",
    "attempt": "Which try, from 1; left out where the reporter cannot know.",
    "maxAttempts": "How many tries there are at most.",
    "queue": "The queue of the worker.",
    "worker": "The worker's host.",
    "queuedSeconds": "How long the attempt waited for the worker.",
    "host": "The host that the process runs on.",
    "pid": "The number of the process on its host.",
    "environment": "Whether the task's environment was built for this attempt, or found ready.",
    "environmentSeconds": "How long it took to have the environment ready.",
    "sequence": "Rises with each event of this type about one attempt, from 0; with gaps if several processes report.",
    "done": "How much is done, in the author's unit.",
    "total": "How much there is to do, in the same unit.",
    "unit": "What is counted.",
    "note": "What the author has to say.",
    "provisional": "Whether the reporter may be mistaken: the engine's word, which that of task or launcher outranks.",
    "durationSeconds": "How long it took.",
    "cpuSeconds": "The processor time of the task and its children.",
    "peakMemoryBytes": "The most memory that was resident, of the task's largest process.",
    "phases": "The seconds spent in each phase that was entered: `pre_run`, `run`, `post_run`.",
    "final": "Whether no further attempt follows; left out where the reporter cannot know.",
    "cause": "Why it failed. A newer release may know causes that are not listed.",
    "phase": "The phase in which it failed.",
    "errorType": "The class of the exception, with its module.",
    "message": "What the exception says.",
    "stack": "The stack of the exception; where it was cut, its end.",
    "fingerprint": "Equal for equal failures: derived from the error's type and the functions it passed through.",
    "exitCode": "The exit code of the process.",
    "signal": "The name of the signal that ended the process.",
    "logUrl": "Where the attempt's log is.",
    "limitSeconds": "How long the silence may last.",
    "lastSignAt": "When the attempt was last heard of.",
}
"""What each field states, by its name in JSON: a name means the same in every event."""


def schema(event_class: type[Event]) -> dict[str, Any]:
    """Return the schema of the `data` of an event; what its envelope states is CloudEvents' business."""
    made = event_class.model_json_schema()
    fields = [str(field.alias) for field in event_class.model_fields.values() if not field.exclude]
    properties = {name: {"description": MEANINGS[name]} | _present(made["properties"][name]) for name in fields}
    definitions = made.get("$defs", {})
    return {
        "$schema": DIALECT,
        "$id": f"urn:dkist-processing-core:schema:{event_class.name}:{event_class.schema_version}",
        "title": event_class.name,
        "description": made["description"],
        "type": "object",
        "properties": properties,
        "required": [name for name in made["required"] if name in properties],
    } | ({"$defs": kept} if (kept := {name: _present(definitions[name]) for name in _named_by(properties)}) else {})


def file_name(event_class: type[Event]) -> str:
    """Return what the schema's file is called."""
    return f"{event_class.name}.v{event_class.schema_version}.json"


def text_of(event_class: type[Event]) -> str:
    """Return the schema as its file holds it."""
    return json.dumps(schema(event_class), indent=2) + "\n"


def _present(made: Any) -> Any:
    """Return a schema without titles, and without null: a field that states nothing is left out of an event."""
    if isinstance(made, list):
        return [_present(part) for part in made]
    if not isinstance(made, dict):
        return made
    kept: dict[str, Any] = {
        key: {name: _present(part) for name, part in value.items()} if key == "properties" else _present(value)
        for key, value in made.items()
        if key not in {"title", "default"}
    }
    if {"type": "null"} in kept.get("anyOf", []):
        kept["anyOf"].remove({"type": "null"})
        if len(kept["anyOf"]) == 1:
            kept |= kept.pop("anyOf")[0]
    return kept


def _named_by(made: Any) -> Iterable[str]:
    """Return the names of the definitions that a schema refers to."""
    if isinstance(made, dict):
        found = [made["$ref"].rpartition("/")[2]] if "$ref" in made else []
        return dict.fromkeys([*found, *(name for part in made.values() for name in _named_by(part))])
    return [name for part in made for name in _named_by(part)] if isinstance(made, list) else []


def main(folder: str) -> None:
    """Write the schema of every event into a folder."""
    for event_class in EVENT_CLASSES:
        (Path(folder) / file_name(event_class)).write_text(text_of(event_class))


if __name__ == "__main__":
    main(*sys.argv[1:])
