"""
Wire examples of earlier releases: they are decoded to the same facts, and the same facts are encoded equally.
"""

import hashlib
import json
import re
from typing import Any

import pytest

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import EVENT_CLASSES, RecipeRunFailureMessage, Reporter, decode, encode
from dkist_processing_core.journal.message import to_failure_message, to_message
from tests.golden import class_of, example_of, examples, facts_of, to_plain

pytestmark = pytest.mark.on_failure(
    "This code reads or writes an event in another form than an earlier release. Correct events/codec.py, "
    "events/facts.py or journal/message.py, and change no line of tests/golden. For a new example of an event, run: "
    ".venv/bin/python -m tests.golden NAME BASE FACTS >> tests/golden/events.jsonl (see CONTRIBUTING.md)"
)

# The beginning of a complaint about a field; a later release may improve the text about the expected value.
_FOUND = re.compile(r"(\w+): found (.+?), (?:but|expected) ")


def named(name: str) -> pytest.MarkDecorator:
    """Parametrize a test by the examples of a file."""
    rows = examples(name)
    return pytest.mark.parametrize("example", rows, ids=[row["example"] for row in rows])


def unchanged(text: str) -> str:
    """Replace the redaction, which knows the variables of this process."""
    return text


def findings(reason: str) -> list[tuple[str, str]] | str:
    """Return which field has which value, for a reason that names fields; of any other reason, what was found."""
    # A later release may expect further types.
    return _FOUND.findall(reason) or reason.partition(", expected ")[0]


def test_each_class_has_an_example_of_each_reporter() -> None:
    """Only behaviour with an example is tested."""
    shown = {(row["class"], row["facts"]["reported_by"]) for row in examples("events.jsonl")}
    recorded = {
        "WorkflowStarted",
        "WorkflowFinished",
        "WorkflowFailed",
        "WorkflowOverdue",
        "TaskDispatched",
        "TaskStarted",
        "TaskProgressed",
        "TaskSampled",
        "TaskFinished",
        "TaskFailed",
        "TaskSkipped",
        "TaskOverdue",
    }
    assert shown == {(name, reporter.value) for name in recorded for reporter in Reporter}
    assert recorded <= {event_class.__name__ for event_class in EVENT_CLASSES}


@named("events.jsonl")
def test_what_was_written_is_read_to_the_same_facts(example: dict[str, Any]) -> None:
    """An archive keeps bodies for a week, and a journal until its broker is back."""
    event = decode(example["body"].encode(), example["properties"]["content_type"])

    assert type(event) is class_of(example)
    assert {name: to_plain(getattr(event, name)) for name in example["facts"]} == example["facts"]
    derived = ("id", "type", "source", "subject", "dataschema")
    assert {name: getattr(event, name) for name in derived} == {name: example[name] for name in derived}
    assert json.loads(encode(event)) == json.loads(example["body"])


@named("events.jsonl")
def test_the_same_facts_are_written_alike(example: dict[str, Any]) -> None:
    """Body, properties and routing key, which other releases and other languages read."""
    event = class_of(example)(**dict(facts_of(example)))

    message = to_message(event, "workflow.events.x", blank=unchanged)

    assert json.loads(message.body) == json.loads(example["body"])
    assert json.loads(message.properties.to_json()) == example["properties"]
    assert message.routing_key == example["routing_key"]


def test_a_new_example_has_the_form_of_the_recorded_ones() -> None:
    """
    `python -m tests.golden` prints the recorded examples again, if it gets their facts.

    A field that was added later is not in the facts of an older example; the event does not state it.
    """
    recorded = examples("events.jsonl")

    made = [example_of(row["example"], row["class"], row["given"]) for row in recorded]

    for row, old in zip(made, recorded, strict=True):
        later = row["facts"].keys() - old["facts"].keys()
        assert {name: row["facts"].pop(name) for name in later} == dict.fromkeys(later)
        # A release may write a number with other digits, such as 1e22 instead of 1e+22.
        assert row | {"body": json.loads(row["body"])} == old | {"body": json.loads(old["body"])}


@named("cut.jsonl")
def test_what_is_too_large_is_cut_alike(example: dict[str, Any]) -> None:
    """Two reporters of one occurrence cut it at the same character."""
    message = to_message(class_of(example)(**dict(facts_of(example))), "workflow.events.x", blank=unchanged)

    body = json.loads(message.body)
    assert body["data"]["truncated"] is True
    assert len(message.body) == example["bytes"]
    assert hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() == example["sha256"]


@named("accepted.jsonl")
def test_what_was_read_tolerantly_still_is(example: dict[str, Any]) -> None:
    """Publishers in other languages and of later releases state facts a little differently."""
    event = decode(example["body"].encode(), example["content_type"], example["headers"])

    assert {name: to_plain(getattr(event, name)) for name in example["facts"]} == example["facts"]
    assert event.id == example["id"]


@named("refused.jsonl")
def test_what_was_refused_still_is_with_the_same_finding(example: dict[str, Any]) -> None:
    """An operator reads the reason among the dead letters: the field, and the value found there."""
    body = example["body"].encode("latin-1" if example["example"] == "not UTF-8" else "utf-8")

    with pytest.raises(DecodeError) as refused:
        decode(body, example["content_type"], example["headers"])

    assert findings(str(refused.value)) == findings(example["reason"])


@named("failure_messages.jsonl")
def test_the_established_failure_message_is_written_alike(example: dict[str, Any]) -> None:
    """It is older than the events, and so are its readers."""
    message = to_failure_message(RecipeRunFailureMessage(**example["given"]), example["exchange"], blank=unchanged)

    assert json.loads(message.body) == json.loads(example["body"])
    assert json.loads(message.properties.to_json()) == example["properties"]
    assert message.routing_key == example["routing_key"]
