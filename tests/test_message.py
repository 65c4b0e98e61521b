"""Events as messages: routing, properties, redaction, and the failure message of release 7.x."""

import json
import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dkist_processing_core.events import (
    CONTENT_TYPE,
    MAX_ENCODED_BYTES,
    Event,
    Graph,
    RecipeRunFailureMessage,
    TaskEvent,
    TaskFailed,
    WorkflowFailed,
    WorkflowStarted,
    decode,
)
from dkist_processing_core.events._checks import form_of
from dkist_processing_core.journal.message import (
    Properties,
    routing_key,
    to_failure_message,
    to_message,
    topic_matches,
    word,
)
from dkist_processing_core.text import REDACTED, clean
from tests.facts import failed, finished, make, progressed, sampled
from tests.strategies import events, events_of, examples, texts

EXCHANGE = "workflow.events.x"
NAMES = texts().map(clean) | st.builds(
    lambda text, count: text * count, st.sampled_from(["x", ".", "é", "🔭", "a.b"]), st.integers(0, 300)
)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (failed("ParseL0", workflow_name="l0_to_l1_visp"), "task.failed.l0_to_l1_visp.ParseL0"),
        (make(WorkflowStarted, workflow_name="l0_to_l1_visp"), "workflow.started.l0_to_l1_visp"),
        (finished("Task.V2[3]", workflow_name="a.b"), "task.finished.a-b.Task-V2[3]"),
        (finished("", workflow_name=""), "task.finished.."),
    ],
)
def test_the_routing_key_names_event_workflow_and_task(event: Event, expected: str) -> None:
    """The event's name becomes two words, and each other name becomes one. A dot inside a name becomes a dash."""
    assert expected == routing_key(event)


@given(NAMES)
def test_a_word_is_one_word_of_at_most_a_hundred_bytes(name: str) -> None:
    """Any name becomes a word that the broker can route by."""
    assert "." not in word(name)
    assert len(word(name).encode()) <= 100


@given(NAMES.filter(lambda name: len(name.encode()) <= 100))
def test_a_short_name_stays_as_it_is(name: str) -> None:
    """Only its dots are replaced."""
    assert name.replace(".", "-") == word(name)


def test_long_names_that_begin_alike_are_told_apart() -> None:
    """Shortened names stay different, and the cut does not split a character."""
    words = {word("é" * 100 + end) for end in ("a", "b", ".", "-")}

    assert len(words) == 4
    assert all(each.startswith("é" * 45 + "-") for each in words)
    assert [len(each.encode()) for each in words] == [99] * 4


@given(events())
def test_an_event_is_routed_by_its_own_names(event: Event) -> None:
    """The key that a consumer asks for matches the key that the event is published with."""
    task = [word(event.task_name)] if isinstance(event, TaskEvent) else []
    pattern = ".".join([event.name, word(event.workflow_name), *task])

    assert topic_matches(pattern, routing_key(event)) or {"#", "*"} & set(pattern.split("."))


@settings(max_examples=30)
@given(data=st.data())
def test_a_message_is_within_the_limits_of_amqp(data: st.DataObject) -> None:
    """Short strings have at most 255 bytes, and timestamps have no sign. A message beyond that cannot be sent."""
    event = data.draw(events_of(TaskFailed, run_id=NAMES, task_name=NAMES, workflow_name=NAMES))

    message = to_message(event, EXCHANGE)

    properties = message.properties
    short = [message.routing_key, properties.message_id, properties.content_type, properties.type]
    assert max(len(text.encode()) for text in [*short, properties.correlation_id] if text) <= 255
    assert properties.timestamp is not None
    assert 0 <= properties.timestamp < 2**64


def test_the_properties_say_what_the_body_says() -> None:
    """Brokers and tools read the properties without decoding the body."""
    event = failed("A", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    message = to_message(event, EXCHANGE)

    assert message.exchange == EXCHANGE
    assert message.properties == Properties(
        message_id=event.id,
        content_type=CONTENT_TYPE,
        type="edu.nso.dkist.task.failed",
        timestamp=int(event.time.timestamp()),
        correlation_id="r",
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )


def test_without_a_trace_there_is_no_header() -> None:
    """An empty header would be an invalid trace context."""
    assert to_message(finished("A"), EXCHANGE).properties.headers == {}


@given(events())
def test_properties_survive_the_journal(event: Event) -> None:
    """The message that was written to disk is the message that is sent later."""
    properties = to_message(event, EXCHANGE).properties

    assert properties == Properties.from_json(properties.to_json())


@given(events())
def test_a_message_carries_the_event(event: Event) -> None:
    """Apart from redaction and shortening, the received event equals the published one."""
    message = to_message(event, EXCHANGE)

    decoded = decode(message.body, message.properties.content_type, message.properties.headers)

    assert event.id == decoded.id == message.properties.message_id
    assert len(message.body) <= MAX_ENCODED_BYTES


# Redaction


@examples(2)
@given(
    secret=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=6).filter(
        lambda text: text not in REDACTED
    ),
    data=st.data(),
)
@example(secret="a\"b'c\\d", data=None)
@example(secret="p@ss/wörd", data=None)
@example(secret="line\nbreak\x1b", data=None)
def test_no_secret_of_the_environment_is_published(secret: str, data: st.DataObject | None) -> None:
    """Secrets are redacted raw and in the spellings of Python and JSON, in every text of an author or an exception."""
    around = [("before ", " after"), ("amqp://user:", "@host/"), ("", ""), ('"', '"')]
    before, after = around[0] if data is None else data.draw(st.sampled_from(around))
    texts_with_it = [f"{before}{spelt}{after}" for spelt in (secret, repr(secret), json.dumps(secret))]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().endswith(("KEY", "TOKEN", "PASSWORD"))]:
            patch.delenv(name)
        patch.setenv("SITE_PASSWORD", secret)
        published = [
            to_message(event, EXCHANGE)
            for text in texts_with_it
            for event in (
                failed("A", message=text, stack=text, log_url=text),
                failed("A", last_stack=text, last_log=text, last_phase=text, last_progress=text),
                sampled("A", 0, top_frame=text),
                progressed("A", 0, note=text, unit=text),
                make(WorkflowFailed, reason=text),
            )
        ]

    shown = [text for message in published for text in free_texts(decode(message.body))]
    assert [text for text in shown if clean(secret) in text] == []
    assert [message for message in published if b"[redacted]" not in message.body] == []


def free_texts(event: Event) -> list[str]:
    """Return the texts of an event that are not names."""
    return [text for name in form_of(type(event)).free_text if isinstance(text := getattr(event, name), str)]


def test_a_secret_at_the_place_of_the_cut_does_not_show() -> None:
    """Redaction comes before shortening, so that no part of a secret is left at the cut."""
    secret = "".join(f"{number:04}-" for number in range(2000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_TOKEN", secret)

        body = to_message(failed("A", stack=secret * 50, message=secret * 50), EXCHANGE).body

    assert b"0123-" not in body


def test_a_field_with_a_limit_of_its_own_is_cut_also_in_a_small_event() -> None:
    """The log of a killed task is a few lines, even if the event has room for more."""
    sent = to_message(failed("A", message="m", last_log="a line\n" * 2000), EXCHANGE, blank=str)

    event = decode(sent.body)
    assert isinstance(event, TaskFailed)
    assert len(event.last_log or "") == 8192
    assert (event.message, event.truncated) == ("m", True)


def test_names_are_not_redacted() -> None:
    """A task that is named like a password keeps its name, which is part of its identity."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_KEY", "ParseL0")

        decoded = decode(to_message(failed("ParseL0", message="ParseL0 failed"), EXCHANGE).body)

    assert isinstance(decoded, TaskFailed)
    assert (decoded.task_name, decoded.message) == ("ParseL0", "[redacted] failed")


# The failure message

FACTS: dict[str, Any] = {
    "workflow_name": "l0_to_l1_visp",
    "workflow_version": "2.16.3",
    "task_name": "ParseL0",
    "dag_run_id": "manual__1",
}


def test_the_failure_message_has_its_established_form() -> None:
    """The consumers of this message are older than the events."""
    message = RecipeRunFailureMessage(**FACTS, log_url="https://u:p@airflow/log", conversation_id="c")

    sent = to_failure_message(message, "master.direct.x")

    assert (sent.exchange, sent.routing_key) == ("master.direct.x", "recipe.run.failure.m")
    assert json.loads(sent.body) == {
        "workflowName": "l0_to_l1_visp",
        "workflowVersion": "2.16.3",
        "taskName": "ParseL0",
        "dagRunId": "manual__1",
        "logUrl": "https://[redacted]@airflow/log",
        "conversationId": "c",
    }
    assert sent.properties.content_type == "application/json"
    assert sent.properties.correlation_id == "manual__1"


def test_a_failure_message_is_known_by_run_and_task() -> None:
    """A host sends it only once, even if other facts are known the second time."""
    first = RecipeRunFailureMessage(**FACTS)
    again = RecipeRunFailureMessage(**FACTS, log_url="https://airflow/log", conversation_id="c")
    other = RecipeRunFailureMessage(**FACTS | {"task_name": "ParseL1"})

    assert to_failure_message(first, "x").properties.message_id == first.id
    assert first.id == again.id
    assert first.id != other.id


def test_a_failure_message_without_a_conversation_begins_one() -> None:
    """Its id becomes the conversation id, so that sending it again does not start another conversation."""
    message = RecipeRunFailureMessage(**FACTS)

    assert json.loads(message.encode())["conversationId"] == message.id


@given(texts(), texts(), texts())
def test_a_failure_message_takes_any_name(name: str, run_id: str, url: str) -> None:
    """Its body is UTF-8 JSON, and its properties are within the limits of AMQP."""
    facts = FACTS | {"task_name": name, "dag_run_id": run_id * 20}

    sent = to_failure_message(RecipeRunFailureMessage(**facts, log_url=url), "x")

    assert json.loads(sent.body)["taskName"] == clean(name)
    assert len((sent.properties.correlation_id or "").encode()) <= 255


# Topics


def matches_by_definition(pattern: list[str], words: list[str]) -> bool:
    """Return True if words match a pattern by the specification of AMQP 0-9-1, by trying all possibilities."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches_by_definition(pattern[1:], words[count:]) for count in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches_by_definition(pattern[1:], words[1:])


@examples(10)
@given(
    pattern=st.lists(st.sampled_from(["*", "#", "a", "b", ""]), min_size=1, max_size=6),
    words=st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=6),
)
def test_topics_match_as_the_broker_has_it(pattern: list[str], words: list[str]) -> None:
    """`*` matches one word, `#` any number of words including none."""
    assert matches_by_definition(pattern, words) == topic_matches(".".join(pattern), ".".join(words))


def test_a_pattern_of_many_wildcards_is_quick() -> None:
    """The time of matching is proportional to the lengths of pattern and key, not to the number of combinations."""
    assert not topic_matches("#.a." * 50 + "b", "a." * 200 + "c")


def test_graphs_are_no_free_text() -> None:
    """The names in a graph are part of the identity, and are not redacted."""
    graph = Graph(nodes=("secret-name",), edges=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_KEY", "secret-name")

        decoded = decode(to_message(make(WorkflowStarted, graph=graph), EXCHANGE).body)

    assert isinstance(decoded, WorkflowStarted)
    assert graph == decoded.graph
