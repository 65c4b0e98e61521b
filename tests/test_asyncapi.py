"""
The AsyncAPI document of the bus: valid by the official schema, in step with the classes, and followed by the messages.

Not here: the properties of messages on a real broker (test_other_languages).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from dkist_processing_core.bus.asyncapi.document import asyncapi, text_of
from dkist_processing_core.bus.asyncapi.document import main as write_document
from dkist_processing_core.bus.asyncapi.page import main as write_page
from dkist_processing_core.bus.asyncapi.page import page
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import EVENT_CLASSES, Event, RecipeRunFailureMessage, encode
from tests.facts import failed
from tests.generated import generated_by
from tests.strategies import events_of

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "telemetry" / "asyncapi.json"
PAGE = ROOT / "docs" / "reference" / "bus.md"
TEXT = st.text(max_size=20)
WRITTEN: dict[str, Any] = json.loads(DOCUMENT.read_text())
MESSAGES = WRITTEN["components"]["messages"]


@generated_by("make events")
def test_the_document_is_in_step_with_the_classes(tmp_path: Path) -> None:
    """The file is what its generator writes."""
    write_document(str(tmp_path / "asyncapi.json"))

    assert (tmp_path / "asyncapi.json").read_text() == DOCUMENT.read_text()


@generated_by("make events")
def test_the_page_is_in_step_with_the_document(tmp_path: Path) -> None:
    """The page is what its generator writes, and shows each channel, property and parameter."""
    write_page(str(tmp_path / "bus.md"))

    written = (tmp_path / "bus.md").read_text()
    assert written == PAGE.read_text() == page(WRITTEN)
    assert all(f"`{channel['address']}`" in written for channel in WRITTEN["channels"].values())


def test_the_document_is_valid_by_the_schema_of_asyncapi(node_modules: Path) -> None:
    """The official schema contains that of the bindings, and refuses a document with a planted mistake."""
    official = json.loads((node_modules / "@asyncapi" / "specs" / "schemas" / "3.0.0.json").read_text())
    Draft7Validator.check_schema(official)
    validator = Draft7Validator(official)
    wrong = json.loads(DOCUMENT.read_text())
    wrong["channels"]["taskEvents"]["bindings"]["amqp"]["is"] = "topic"

    assert [error.message for error in validator.iter_errors(WRITTEN)] == []
    assert not validator.is_valid(wrong)


def test_each_reference_in_the_document_leads_to_a_part_of_it() -> None:
    """Each message, schema and channel that is referred to is defined, and each schema is used."""
    references = set(references_in(WRITTEN))

    for reference in references:
        part: Any = WRITTEN
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    used = {reference.rpartition("/")[2] for reference in references if "/schemas/" in reference}
    assert used == set(WRITTEN["components"]["schemas"])


def references_in(part: Any) -> list[str]:
    """Return the references in a part of a document."""
    if isinstance(part, list):
        return [found for each in part for found in references_in(each)]
    if isinstance(part, dict):
        here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return here + [found for each in part.values() for found in references_in(each)]
    return []


VALIDATORS = {
    name: Draft7Validator({**message["payload"], "components": WRITTEN["components"]})
    for name, message in MESSAGES.items()
}


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
@settings(max_examples=10)
@given(data=st.data())
def test_each_event_follows_the_document(event_class: type[Event], data: st.DataObject) -> None:
    """The whole body, with the attributes of the CloudEvent, and the schema of no other message allows it."""
    body = json.loads(encode(data.draw(events_of(event_class))))

    assert [error.message for error in VALIDATORS[event_class.name].iter_errors(body)] == []
    assert set(body) <= set(MESSAGES[event_class.name]["payload"]["properties"])
    assert [name for name, validator in VALIDATORS.items() if validator.is_valid(body)] == [event_class.name]


@settings(max_examples=10)
@given(workflow_name=TEXT, dag_run_id=st.none() | TEXT, log_url=st.none() | TEXT, conversation_id=TEXT)
def test_each_failure_message_follows_the_document(**facts: Any) -> None:
    """A missing run or log is null."""
    message = RecipeRunFailureMessage(workflow_version="1", task_name="A", **facts)
    body = json.loads(message.encode())

    assert [error.message for error in VALIDATORS[message.routing_key].iter_errors(body)] == []
    assert set(body) == set(WRITTEN["components"]["schemas"]["failureMessage"]["properties"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"specversion": "0.3"}, "'1.0' was expected"),
        ({"reportedby": "someone"}, "'someone' is not one of ['task', 'launcher', 'engine', 'watcher']"),
        ({"time": 7}, "7 is not of type 'string'"),
        ({"data": {"attempt": 0}}, "'workflowName' is a required property"),
    ],
)
def test_the_document_refuses_what_is_no_event(change: dict[str, Any], complaint: str) -> None:
    """Attributes and data are checked."""
    body = json.loads(encode(failed("A"))) | change

    assert complaint in [error.message for error in VALIDATORS["task.failed"].iter_errors(body)]


def test_the_command_writes_the_document_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges have the names that the settings give, and no broker is needed."""
    default = CliRunner().invoke(app, ["topology", "asyncapi"], catch_exceptions=False).stdout
    monkeypatch.setenv("ISB_EVENT_EXCHANGE", "own.events.x")
    monkeypatch.setenv("ISB_QUEUE_TYPE", "quorum")

    changed = json.loads(CliRunner().invoke(app, ["topology", "asyncapi"], catch_exceptions=False).stdout)

    assert json.loads(default) == WRITTEN
    assert changed["channels"]["taskEvents"]["bindings"]["amqp"]["exchange"]["name"] == "own.events.x"
    assert text_of(changed) == text_of(asyncapi(DKISTProcessingCoreConfiguration.read()))
