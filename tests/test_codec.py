"""Events as CloudEvents: an encoded event is decoded unchanged, and a foreign message is refused with a reason."""

import contextlib
import json
import re
import tracemalloc
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

import dkist_processing_core.events as package
from dkist_processing_core.errors import DecodeError, UnknownEventError
from dkist_processing_core.events import (
    CONTENT_TYPE,
    EVENT_CLASSES,
    MAX_BODY_BYTES,
    Event,
    Graph,
    TaskOverdue,
    WorkflowStarted,
    codec,
    data_of,
    decode,
    encode,
    format_time,
)
from tests import hostile
from tests.facts import NOON, failed, finished, make, started
from tests.strategies import events, events_of, examples, texts

PREFIXES = ["cloudEvents_", "cloudEvents:", "ce-", "CE-"]
PRESENT_TIMES = st.integers(10**9, 10**10).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=5,
)


def envelope(**changes: Any) -> dict[str, Any]:
    """Return the JSON of a task's failure with some attributes changed; None removes an attribute."""
    made: dict[str, Any] = json.loads(encode(failed("A", message="no good")))
    return {name: value for name, value in (made | changes).items() if value is not None}


def with_data(**changes: Any) -> dict[str, Any]:
    """Return that JSON with some of its data changed; None removes a field."""
    data = envelope()["data"] | changes
    return envelope(data={name: value for name, value in data.items() if value is not None})


def test_every_class_is_there_once() -> None:
    """The union for decoding contains each exported event, and no two have one name."""
    exported = [value for value in vars(package).values() if isinstance(value, type) and issubclass(value, Event)]

    assert set(EVENT_CLASSES) == {event_class for event_class in exported if hasattr(event_class, "name")}
    assert len({event_class.name for event_class in EVENT_CLASSES}) == len(EVENT_CLASSES)


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
@given(data=st.data())
def test_an_event_survives_encoding(event_class: type[Event], data: st.DataObject) -> None:
    """With any content, the decoded event is equal to the encoded one, including the id."""
    event = data.draw(events_of(event_class))

    decoded = decode(encode(event), CONTENT_TYPE)

    assert event == decoded
    assert event.id == decoded.id


@given(events())
def test_an_event_is_one_line_of_plain_json(event: Event) -> None:
    """RFC 8259 without Python's additions, so that any consumer can read it; null states nothing and is left out."""
    text = encode(event).decode()

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    parsed = json.loads(text, parse_constant=refuse)

    assert "\n" not in text
    assert None not in [*parsed.values(), *parsed["data"].values()]


def refuse_uri(source: str) -> bool:
    """Return whether a text is no path of a URI reference, by the grammar of RFC 3986, 3.3 (path-absolute)."""
    pchar = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
    return re.fullmatch(rf"/(?:{pchar}+(?:/{pchar}*)*)?", source) is None


@given(events())
def test_the_attributes_keep_to_the_specification(event: Event) -> None:
    """CloudEvents 1.0: names in lower case, strings without control characters, a source that is a URI reference."""
    attributes = json.loads(encode(event))
    attributes.pop("data")

    assert not refuse_uri(attributes["source"])
    assert attributes["source"].count("/") == 3
    assert [name for name in attributes if not re.fullmatch("[a-z0-9]{1,20}", name)] == []
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "".join(attributes.values()))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", attributes["time"])
    assert "" not in [attributes[name] for name in attributes if name not in {"traceparent", "tracestate"}]


def test_a_finished_task_looks_like_this() -> None:
    """The wire format as text, in one place: readers by hand and in other languages can rely on it."""
    event = finished(
        "ParseL0",
        workflow_name="l0 to/l1",
        run_id="manual__1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        duration_seconds=2.5,
        phases={"run": 2.0},
    )

    assert json.loads(encode(event)) == {
        "specversion": "1.0",
        "id": "cb80bbcd-9545-5a86-9b51-921af0937645",
        "source": "/workflows/l0%20to%2Fl1/1",
        "type": "edu.nso.dkist.task.finished",
        "subject": "manual__1/ParseL0/1",
        "time": "2026-11-22T12:00:00.000000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:dkist-processing-core:schema:task.finished:1",
        "reportedby": "task",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "data": {
            "workflowName": "l0 to/l1",
            "workflowVersion": "1",
            "dagRunId": "manual__1",
            "recipeRunId": 1,
            "taskName": "ParseL0",
            "attempt": 1,
            "maxAttempts": 1,
            "provisional": False,
            "durationSeconds": 2.5,
            "phases": {"run": 2.0},
        },
    }


@given(events())
def test_the_official_package_reads_every_event(event: Event) -> None:
    """The reference implementation reads the same attributes and the same data in the structured form."""
    message = HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=encode(event))

    read = from_structured_event(message)

    assert (event.id, event.source, event.type) == (read.get_id(), read.get_source(), read.get_type())
    assert (event.subject or None, event.time) == (read.get_subject(), read.get_time())
    assert event.dataschema == read.get_dataschema()
    assert event.reported_by == read.get_extension("reportedby")
    assert event.traceparent == read.get_extension("traceparent")
    assert data_of(event) == read.get_data()


@given(events())
def test_the_official_rabbitmq_binding_is_understood(event: Event) -> None:
    """An event in RabbitMQ's binary mode by another producer is decoded to the same event."""
    official = from_structured_event(HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=encode(event)))

    message = rabbitmq.to_binary(official, JSONFormat())

    assert event == decode(message.body, message.content_type, message.headers)


@given(events_of(TaskOverdue, time=PRESENT_TIMES))
def test_the_official_amqp_binding_is_understood(event: Event) -> None:
    """AMQP 1.0 states times in milliseconds, which a broker between the protocols forwards as a number."""
    official = from_structured_event(HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=encode(event)))

    message = amqp.to_binary(official, JSONFormat())

    assert event == decode(message.application_data, "application/json", message.application_properties)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("as_bytes", [False, True], ids=["str", "bytes"])
def test_binary_mode_is_read_with_each_prefix(prefix: str, *, as_bytes: bool) -> None:
    """Header values are text or bytes, as the broker's client gives them; the body is the data alone."""
    event = failed("Å", message="no good", traceparent="00-1-2-01")
    attributes = json.loads(encode(event))
    body = json.dumps(attributes.pop("data")).encode()
    headers = {f"{prefix}{name}": value.encode() if as_bytes else value for name, value in attributes.items()}

    decoded = decode(body, "application/json", headers | {"x-other": 1})

    assert event == decoded


def test_a_time_in_a_header_may_be_a_timestamp() -> None:
    """AMQP has a type for it, which clients return as a datetime."""
    attributes = envelope()
    body = json.dumps(attributes.pop("data")).encode()
    headers = {f"ce-{name}": value for name, value in attributes.items()} | {"ce-time": NOON}

    assert decode(body, None, headers).time == NOON


def test_the_structured_form_outranks_headers() -> None:
    """A content type of CloudEvents decides, whatever headers a relay has added."""
    event = finished("A")
    headers = {f"ce-{name}": value for name, value in envelope().items() if name != "data"}

    assert event == decode(encode(event), CONTENT_TYPE, headers)


@given(texts(), texts())
def test_what_the_envelope_states_the_data_cannot(time: str, reporter: str) -> None:
    """Fields of the same names in the data change nothing."""
    body = json.dumps(with_data(time=time, reportedBy=reporter, reported_by=reporter, traceparent=time)).encode()

    assert failed("A", message="no good") == decode(body)


def test_fields_that_a_newer_release_adds_are_passed_over() -> None:
    """Several releases share one bus: an event with additional fields is still the event."""
    body = json.dumps(with_data(colour="blue", nested={"a": [1]}) | {"extension": "x"}).encode()

    assert failed("A", message="no good") == decode(body)


@pytest.mark.parametrize(
    ("event_type", "is_ours"),
    [
        ("edu.nso.dkist.task.applauded", True),
        ("edu.nso.dkist.dataset.released", True),
        ("edu.nso.dkist.task.step.done_2", True),
        ("edu.nso.dkist.", False),
        ("edu.nso.dkist.task", False),
        ("edu.nso.dkist.task.applauded\n", False),
        ("com.example.task.applauded", False),
    ],
)
def test_a_type_that_a_newer_release_adds_is_no_foreign_message(event_type: str, *, is_ours: bool) -> None:
    """A consumer skips it; a foreign message goes to the dead letters."""
    with pytest.raises(DecodeError, match="type is ") as refused:
        decode(json.dumps(envelope(type=event_type)).encode())

    assert isinstance(refused.value, UnknownEventError) == is_ours


def test_a_cause_that_a_newer_release_adds_is_kept_as_text() -> None:
    """A failure with an unknown cause is not dead-lettered."""
    decoded = decode(json.dumps(with_data(cause="cosmic_ray")).encode())

    assert data_of(decoded)["cause"] == "cosmic_ray"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", r"the body is not JSON \(JSONDecodeError: .*\): found b'', expected a JSON object"),
        (b"hello", r"the body is not JSON .*: found b'hello', expected a JSON object"),
        (b"\xff\xfe\x00", r"the body is not JSON \(UnicodeDecodeError: "),
        (b"[" * 100_000, r"the body nests too deeply: found b.\[+[.]{3}\[+., expected an event of few levels"),
        (b'{"a":' * 100_000, "the body nests too deeply: found"),
        (b"1" * 5000, r"the body is not JSON \(ValueError: Exceeds the limit"),
        (b'{"specversion":"1.0","x":NaN}', r"the body is not JSON \(ValueError: NaN is no number in JSON\)"),
        (b"[1]", "the body is an array, expected a JSON object"),
        (b"null", "the body is null, expected a JSON object"),
        (b"true", "the body is a boolean, expected a JSON object"),
        (b"7", "the body is a number, expected a JSON object"),
        (b'"x"', "the body is a string, expected a JSON object"),
        ({}, "the event's data is null, expected a JSON object"),
        (envelope(data=[1]), "the event's data is an array, expected a JSON object"),
        (envelope(data="x"), "the event's data is a string, expected a JSON object"),
        (envelope(specversion=None), "specversion is None, expected '1.0'"),
        (envelope(specversion="0.3"), "specversion is '0.3', expected '1.0'"),
        (envelope(specversion=1.0), r"specversion is 1\.0, expected '1\.0'"),
        (envelope(type=None), "type is None, expected one of edu.nso.dkist.workflow.started, "),
        (envelope(type="edu.nso.dkist.task.exploded"), "type is 'edu.nso.dkist.task.exploded', expected one of"),
        (envelope(type=["x"]), r"type is \['x'\], expected one of"),
        (envelope(type="x" * 1_000_000), "type is 'x{17}[.]{3}x{18}', expected one of"),
        (envelope(id=None), "id is None, expected [0-9a-f-]{36}, which the facts stated have"),
        (envelope(id=7), "id is 7, expected [0-9a-f-]{36}"),
        (envelope(id=finished("A").id), "id is '[0-9a-f-]{36}', expected [0-9a-f-]{36}"),
        (with_data(taskName="B"), "id is '[0-9a-f-]{36}', expected [0-9a-f-]{36}"),
        (envelope(time=None), "task.failed: time: found nothing, expected a time with its zone"),
        (envelope(time="yesterday"), "task.failed: time: found 'yesterday', expected a time with its zone"),
        (envelope(time="2026-11-22T12:00:00"), "task.failed: time: found '.*', expected a time with its zone"),
        (
            envelope(time="0001-01-01T00:00:00+14:00"),
            "time: found '0001.*', expected a time whose year in UTC is from 1 to",
        ),
        (
            envelope(time="9999-12-31T23:00:00-14:00"),
            "time: found '9999.*', expected a time whose year in UTC is from 1 to",
        ),
        (envelope(reportedby=None), "task.failed: reportedBy: found nothing, expected one of 'task'"),
        (envelope(reportedby="neighbour"), "reportedBy: found 'neighbour', expected one of 'task', 'launcher'"),
        (with_data(cause=None), "task.failed: cause: found nothing, expected a text of at most 100 characters"),
        (with_data(workflowName=None, taskName=None), "workflowName: found nothing, .*; taskName: found nothing"),
        (with_data(workflowName=7), "task.failed: workflowName: found 7, expected a text"),
        (with_data(message=["x"] * 100), r"message: found \['x', 'x', .{1,40}, expected a text"),
        (with_data(recipeRunId=True), "recipeRunId: found True, expected an integer or decimal digits"),
        (with_data(recipeRunId=2**63), "recipeRunId: found 9223372036854775808, expected .*from 0 to 2\\^63 - 1"),
        (with_data(attempt=0), "attempt: found 0, expected an integer from 1 to"),
        (
            with_data(attempt=10**4000),
            "attempt: found 10{16,17}[.]{3}0{18,19}, expected an integer from 1",
        ),
        (with_data(durationSeconds=-1), "durationSeconds: found -1, expected a number from 0"),
        (with_data(phases={"\ud800": "x"}), "phases: found 'x', expected a number from 0"),
        (with_data(cause="x" * 101), "cause: found 'x+[.]{3}x+', expected a text of at most"),
        (with_data(truncated=False), "truncated: found False, expected True"),
    ],
)
def test_what_is_none_of_ours_is_refused_with_a_reason(body: bytes | dict[str, Any], reason: str) -> None:
    """The sentence states the found and the expected value, and fits into a header."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()

    with pytest.raises(DecodeError, match=reason) as caught:
        decode(encoded)

    assert len(str(caught.value).encode()) <= 4000
    assert str(caught.value).isprintable()


def test_a_body_in_binary_mode_that_is_no_object_is_refused() -> None:
    """The data of an event of this library is an object, in either mode."""
    headers = {f"ce-{name}": value for name, value in envelope().items() if name != "data"}

    with pytest.raises(DecodeError, match="the body is an array, expected a JSON object"):
        decode(b"[]", "application/json", headers)


def refused_or_decoded(body: bytes, content_type: str | None = None, headers: dict[str, Any] | None = None) -> None:
    """Decode, and allow only an event or the one error."""
    with contextlib.suppress(DecodeError):
        event = decode(body, content_type, headers)

        assert event == decode(encode(event))


@examples(6)
@given(st.binary(max_size=200), st.none() | st.text(max_size=40), st.dictionaries(st.text(max_size=20), JSON_VALUES))
def test_arbitrary_bytes_raise_nothing_else(body: bytes, content_type: str | None, headers: dict[str, Any]) -> None:
    """A consumer survives any message."""
    refused_or_decoded(body, content_type, headers)


@examples(6)
@given(event=events(), data=st.data())
def test_a_damaged_event_raises_nothing_else(event: Event, data: st.DataObject) -> None:
    """Any value in any place of an event is either decoded or refused."""
    whole = json.loads(encode(event))
    target = whole if data.draw(st.booleans()) else whole["data"]
    target[data.draw(st.sampled_from(sorted(target)) | texts())] = data.draw(JSON_VALUES)

    refused_or_decoded(json.dumps(whole).encode(errors="surrogatepass"))


@given(data=st.data())
def test_damaged_headers_raise_nothing_else(data: st.DataObject) -> None:
    """Header values may be of any type that AMQP has."""
    values = JSON_VALUES | st.binary() | st.datetimes() | st.decimals()
    headers = {f"ce-{name}": value for name, value in envelope().items() if name != "data"}
    headers[data.draw(st.sampled_from(sorted(headers)))] = data.draw(values)

    refused_or_decoded(json.dumps(envelope()["data"]).encode(), "application/json", headers)


@given(event=events(), data=st.data())
def test_what_is_read_quickly_is_read_to_the_same_event_slowly(event: Event, data: st.DataObject) -> None:
    """For a body changed anywhere, both ways of reading give the same result."""
    body = bytearray(encode(event))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    quickly = codec._decode_quickly(bytes(body))

    if quickly is not None:
        slowly = codec._decode_slowly(bytes(body), {})
        assert (slowly, slowly.id) == (quickly, quickly.id)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": with_data(message="a\x07b", taskName="c\nd")["data"]},
        {"data": with_data(message="a\x7fb")["data"]},
        {"data": with_data(message="\N{GREEK SMALL LETTER ALPHA} Cen")["data"]},
        {"traceparent": "00\t11"},
        {"time": "2026-11-22T13:00:00.5+01:00"},
        {"time": "2026-11-22T13:00:00"},
        {"data": with_data(truncated=False)["data"]},
    ],
    ids=str,
)
def test_an_event_is_read_as_its_constructor_makes_it_after_another_of_its_class(changed: dict[str, Any]) -> None:
    """Texts are cleaned, times are converted and values refused, although the first event needed none of this."""
    decode(json.dumps(envelope()).encode())
    body = json.dumps(envelope(**changed), ensure_ascii=False).encode()

    results: list[object] = []
    for read in (decode, lambda body: codec._decode_slowly(body, {})):
        try:
            results.append(read(body))
        except DecodeError as error:
            results.append(str(error))

    assert results[0] == results[1]


@pytest.mark.parametrize("field", ["message", "unknown"])
def test_a_body_that_is_not_utf_8_is_refused_wherever_that_shows(field: str) -> None:
    """This includes a field that is ignored."""
    body = json.dumps(with_data(**{field: "HERE"})).encode().replace(b"HERE", b"\xff")

    with pytest.raises(DecodeError, match=r"the body is not JSON \(UnicodeDecodeError"):
        decode(body)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("durationSeconds", "null", "durationSeconds: found 'null', expected a number from 0"),
        ("durationSeconds", True, "durationSeconds: found True, expected a number from 0"),
        ("phases", {"run": "null"}, "phases: found 'null', expected a number from 0"),
    ],
)
def test_what_is_no_value_is_not_taken_for_nothing(field: str, value: object, expected: str) -> None:
    """A value of the wrong type is not taken for null, and a truth value is not taken for a number."""
    with pytest.raises(DecodeError, match=expected):
        decode(json.dumps(with_data(**{field: value})).encode())


@pytest.mark.parametrize(
    "time", ["2026-11-22T12:00Z", 1795348800000.0, "1795348800000", 1795348800, "2026-11-22T12:00:00,0Z"]
)
def test_a_time_may_be_written_in_any_usual_way(time: object) -> None:
    """As text of ISO 8601, or in seconds or milliseconds since 1970."""
    assert decode(json.dumps(envelope(time=time)).encode()).time == NOON


def test_depths_that_only_just_can_be_parsed_raise_nothing_else() -> None:
    """A depth that the parser accepts is accepted by all later steps."""
    for depth in range(100, 1100, 7):
        nested: str = "[" * depth + "]" * depth
        for place in ("type", "id", "specversion", "reportedby"):
            refused_or_decoded(json.dumps(envelope(**{place: "*"})).replace('"*"', nested).encode())
        refused_or_decoded(json.dumps(with_data(message="*")).replace('"*"', nested).encode())


def test_equal_moments_have_one_spelling() -> None:
    """Ids are derived from times, so a second without a fraction has the same form as any other."""
    spellings = [format_time(NOON), format_time(NOON.replace(microsecond=1))]

    assert spellings == ["2026-11-22T12:00:00.000000Z", "2026-11-22T12:00:00.000001Z"]


def test_a_run_without_a_name_has_no_subject() -> None:
    """An attribute without characters is not allowed, so it is left out."""
    event = make(WorkflowStarted, run_id="")

    assert "subject" not in json.loads(encode(event))


@pytest.mark.parametrize("kind", hostile.BODIES)
@given(count=st.integers(min_value=1, max_value=20_000))
@settings(max_examples=5, deadline=None)
def test_decoding_costs_memory_and_work_in_proportion_to_the_size(kind: str, count: int) -> None:
    """
    For any body, memory is a small multiple of its size, and few errors are collected.
    """
    body = hostile.BODIES[kind](count)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as refused:
            decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak <= 40 * len(body) + 400_000
    assert len(str(refused.value)) <= 1000


def test_a_large_graph_is_read_whole() -> None:
    """
    The part-by-part check leaves nothing out, and keeps the order.
    """
    nodes = tuple(f"T{number}" for number in range(1001))
    graph = Graph(nodes=nodes, edges=tuple(pairwise(nodes)))
    assert (nodes, tuple(pairwise(nodes))) == (graph.nodes, graph.edges)
    event = make(WorkflowStarted, graph=msgspec.to_builtins(graph))

    assert graph == event.graph
    assert event == decode(encode(event))


@pytest.mark.parametrize(("size", "is_read"), [(MAX_BODY_BYTES, True), (MAX_BODY_BYTES + 1, False)])
def test_a_body_beyond_the_limit_is_refused_before_it_is_parsed(size: int, *, is_read: bool) -> None:
    """
    The reason states the found and the expected size.
    """
    event = started("A")
    body = encode(event).ljust(size)

    if is_read:
        assert event == decode(body)
    else:
        with pytest.raises(DecodeError, match=r"found 1,048,577 bytes, expected at most 1,048,576"):
            decode(body)
