"""The files for other implementations: the vectors of ids, and the schema of each event."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.events import EVENT_CLASSES, ID_NAMESPACE, TYPE_PREFIX, Event, encode
from dkist_processing_core.events.schema import DESCRIBED, DIALECT, file_name, main, schema, text_of
from tests.facts import NOON, make
from tests.generated import generated_by
from tests.strategies import events_of

FOLDER = Path(__file__).parents[1] / "telemetry"
VECTORS = json.loads((FOLDER / "ids.json").read_text())
SCHEMAS = sorted((FOLDER / "schemas").iterdir())
BY_TYPE = {TYPE_PREFIX + event_class.name: event_class for event_class in EVENT_CLASSES}


def event_stating(facts: list[str]) -> Event:
    """Return an event whose id is derived from these facts."""
    event_type, workflow_name, workflow_version, run_id, task_name, attempt, number = facts
    event_class = BY_TYPE[event_type]
    stated: dict[str, Any] = {
        "workflow_name": workflow_name,
        "workflow_version": workflow_version,
        "run_id": run_id,
        "task_name": task_name,
        "attempt": int(attempt) if attempt else None,
        "cause": "exception",
        "done": 1,
        "limit_seconds": 1,
        "sequence": number if number.isdecimal() else None,
        "expected_at": None if number.isdecimal() else number or None,
        "started_at": number or None,
        "ended_at": number or None,
    }
    return make(event_class, **{name: value for name, value in stated.items() if name in event_class.__struct_fields__})


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_ids_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    """Releases that use the same bus derive the same ids. These ids never change."""
    assert vector["id"] == event_stating(vector["facts"]).id


def test_the_vectors_cover_every_case() -> None:
    """
    There is a vector for each type, for names beyond ASCII, for an unknown attempt, and for two events about one
    subject.
    """
    facts = [vector["facts"] for vector in VECTORS]

    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)
    assert {each[0] for each in facts} == set(BY_TYPE)
    assert any(not "".join(each).isascii() for each in facts)
    assert {"task.failed", "task.skipped", "task.sampled", "task.overdue"} <= {
        each[0].removeprefix(TYPE_PREFIX) for each in facts if each[4] and not each[5]
    }
    assert {bool(each[6]) for each in facts if each[0].startswith(f"{TYPE_PREFIX}workflow.")} == {True, False}


def test_the_vector_of_the_contract_stands() -> None:
    """The vector and its namespace are those of the contract."""
    facts = ["edu.nso.dkist.task.finished", "My_Workflow", "dev", "local__1__20261122T090000Z__0a1b2c3d"]

    assert str(ID_NAMESPACE) == "833a4626-3965-5ef6-86cd-1e4e2a0d402a"
    assert event_stating([*facts, "MyTask1", "1", ""]).id == "d58c5196-d400-5114-bb35-170f59b926b6"


# Schemas


@generated_by("make events")
def test_there_is_a_schema_for_every_event_and_no_other() -> None:
    """The folder contains the published schemas, and no other."""
    assert sorted(file_name(event_class) for event_class in DESCRIBED) == [path.name for path in SCHEMAS]


@generated_by("make events")
@pytest.mark.parametrize("event_class", DESCRIBED, ids=lambda event_class: event_class.name)
def test_the_schema_is_in_step_with_the_class(event_class: type[Event]) -> None:
    """`python -m dkist_processing_core.events.schema telemetry/schemas` generates the files."""
    assert text_of(event_class) == (FOLDER / "schemas" / file_name(event_class)).read_text()


@generated_by("make events")
def test_the_generator_writes_every_file(tmp_path: Path) -> None:
    """The files are written into the given folder."""
    main(str(tmp_path))

    assert [path.read_text() for path in SCHEMAS] == [path.read_text() for path in sorted(tmp_path.iterdir())]


@pytest.mark.parametrize("event_class", DESCRIBED, ids=lambda event_class: event_class.name)
def test_a_schema_is_named_as_the_events_name_it(event_class: type[Event]) -> None:
    """`dataschema` is the id of the schema."""
    made = schema(event_class)
    facts: dict[str, Any] = dict.fromkeys(("attempt", "sequence", "limit_seconds", "done", "count"), 1) | {
        "task_name": "A",
        "cause": "lost",
        "route": "operators",
        "series": "s",
        "kind": "sample",
        "groups": (),
    }
    event = make(event_class, **{name: fact for name, fact in facts.items() if name in event_class.__struct_fields__})

    assert event.dataschema == made["$id"]
    assert made["$schema"] == DIALECT


def test_every_field_has_one_meaning() -> None:
    """A field name has the same meaning in every event."""
    meanings: dict[str, set[str]] = {}
    for event_class in EVENT_CLASSES:
        for name, field in schema(event_class)["properties"].items():
            meanings.setdefault(name, set()).add(field.get("description", ""))

    assert {name: found for name, found in meanings.items() if len(found) != 1 or "" in found} == {}


def complaints(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Return the violations of a schema, for the keywords of JSON Schema 2020-12 that the files use."""
    known = {
        *("$ref", "additionalProperties", "anyOf", "const", "description", "enum", "format", "items", "maxItems"),
        *("maximum", "maxLength", "minItems", "minimum", "prefixItems", "properties", "required", "type"),
        *("$schema", "$id", "title", "$defs"),
    }
    assert set(rule) <= known
    if "$ref" in rule:
        return complaints(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root)
    if "anyOf" in rule and all(complaints(value, part, root) for part in rule["anyOf"]):
        return [f"{value!r} is none of the alternatives"]
    kinds: dict[str, Any] = {
        "string": str,
        "object": dict,
        "array": list,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    if "type" in rule and not (
        isinstance(value, kinds[rule["type"]]) and (isinstance(value, bool) == (rule["type"] == "boolean"))
    ):
        return [f"{value!r} is no {rule['type']}"]
    found = [
        *(f"{name} is missing" for name in rule.get("required", []) if name not in value),
        *([f"{value!r} is not {rule['const']!r}"] if value != rule.get("const", value) else []),
        *([f"{value!r} is not in {rule['enum']}"] if value not in rule.get("enum", [value]) else []),
        *([f"{value!r} is too small"] if "minimum" in rule and value < rule["minimum"] else []),
        *([f"{value!r} is too large"] if "maximum" in rule and value > rule["maximum"] else []),
        *([f"{value!r} is too long"] if "maxLength" in rule and len(value) > rule["maxLength"] else []),
        *([f"{value!r} has too few"] if "minItems" in rule and len(value) < rule["minItems"] else []),
        *([f"{value!r} has too many"] if "maxItems" in rule and len(value) > rule["maxItems"] else []),
    ]
    if rule.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", value):
        found.append(f"{value!r} is no date-time of RFC 3339")
    if isinstance(value, dict):
        properties, rest = rule.get("properties", {}), rule.get("additionalProperties", {})
        parts = [(part, properties.get(name, rest)) for name, part in value.items()]
    elif isinstance(value, list):
        first = rule.get("prefixItems", [])
        parts = [*zip(value, first, strict=False), *((part, rule.get("items", {})) for part in value[len(first) :])]
    else:
        parts = []
    return [*found, *(each for part, inner in parts for each in complaints(part, inner, root))]


@pytest.mark.parametrize("event_class", DESCRIBED, ids=lambda event_class: event_class.name)
@given(data=st.data())
def test_every_event_follows_its_schema(event_class: type[Event], data: st.DataObject) -> None:
    """Each published event follows its schema, and the schema describes each of its fields."""
    made = schema(event_class)
    stated = json.loads(encode(data.draw(events_of(event_class))))["data"]

    assert complaints(stated, made, made) == []
    assert set(stated) <= set(made["properties"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attempt": 0}, "0 is too small"),
        ({"attempt": True}, "True is no integer"),
        ({"recipeRunId": "1"}, "'1' is no integer"),
        ({"phases": {"run": -1}}, "-1 is too small"),
        ({"truncated": False}, "False is not True"),
        ({"cause": 7}, "7 is none of the alternatives"),
    ],
)
def test_a_schema_refuses_what_is_none(change: dict[str, Any], complaint: str) -> None:
    """The schema rejects events that do not follow it."""
    event_class = BY_TYPE[f"{TYPE_PREFIX}task.failed"]
    made = schema(event_class)
    stated = json.loads(encode(make(event_class, "A", cause="lost", time=NOON)))["data"]

    assert complaints(stated, made, made) == []
    assert complaints(stated | change, made, made) == [complaint]
