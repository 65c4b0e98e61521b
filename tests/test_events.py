"""The events themselves: identity, text, size, and the page that documents them."""

import copy
import json
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from dkist_processing_core.errors import EventError
from dkist_processing_core.events import (
    EVENT_CLASSES,
    MAX_ENCODED_BYTES,
    Event,
    Graph,
    Profile,
    Reporter,
    Resources,
    TaskEnd,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSampled,
    WorkflowFailed,
    WorkflowStarted,
    decode,
    encode,
    fit,
    identity_of,
)
from dkist_processing_core.events._checks import form_of
from dkist_processing_core.events._kinds import Count, Cut, about
from dkist_processing_core.events.page import SHARED, page, table
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.text import CUT, clean
from tests.facts import NOON, failed, finished, make, progressed, started
from tests.generated import generated_by
from tests.strategies import events, events_of

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "events.md"
IDENTITY = {"workflow_name", "workflow_version", "run_id", "task_name", "attempt", "sequence", "started_at", "ended_at"}
IDENTITY |= {"expected_at"}
TEXTS_CUT = {"stack", "message", "note", "reason", "last_stack", "last_log", "last_phase", "last_progress"}
LARGE = st.builds(
    lambda text, count: text * count,
    st.sampled_from(
        ["x", '"\\', "\n", "é", "\x00", "🔭", "\ud800", "a line of a stack\n", 'Thread "A":\n  a.py:1 in f\n\n']
    ),
    st.sampled_from([1, 1000, 30_000, 65_536, 200_000]),
)


def identifying(event: Event) -> set[str]:
    """
    Return the fields from which the id of an event is derived.
    """
    names = IDENTITY & set(event.__struct_fields__)
    # A start that was missed has no number.
    return names - {"sequence"} if getattr(event, "expected_at", None) is not None else names


@given(first=events(), data=st.data())
def test_an_id_depends_on_nothing_but_the_fact(first: Event, data: st.DataObject) -> None:
    """Independent reporters agree: reporter, time and additional facts make no difference."""
    given_fields = {name: st.just(getattr(first, name)) for name in identifying(first)}
    second = data.draw(events_of(type(first), **given_fields))

    assert first.id == second.id


@given(first=events(), second=events())
def test_ids_differ_where_facts_do(first: Event, second: Event) -> None:
    """Two events share an id only if they share every fact that it is derived from."""

    def facts(event: Event) -> tuple[object, ...]:
        return (event.type, *((name, getattr(event, name)) for name in sorted(identifying(event))))

    assert (first.id == second.id) == (facts(first) == facts(second))


@given(events())
def test_no_text_in_an_event_is_unclean(event: Event) -> None:
    """Control characters and lone surrogates are replaced at construction, in names, messages and keys."""
    dumped = msgspec.to_builtins(event) | {"traceparent": event.traceparent, "tracestate": event.tracestate}

    def strings(value: object) -> list[str]:
        match value:
            case str():
                return [value]
            case dict():
                return [text for pair in value.items() for part in pair for text in strings(part)]
            case list():
                return [text for part in value for text in strings(part)]
        return []

    assert [text for text in strings(dumped) if text != clean(text)] == []


def test_an_event_is_a_fact_and_cannot_be_changed() -> None:
    """A report cannot be altered."""
    event = finished("A")

    with pytest.raises(AttributeError, match="immutable"):
        event.task_name = "B"  # type: ignore[misc]


def test_times_are_in_utc() -> None:
    """A time in another zone is converted to UTC."""
    event = finished("A", time=datetime(2026, 11, 22, 2, tzinfo=timezone(timedelta(hours=-10))))

    assert event.time == NOON
    assert event.time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_time_that_utc_has_not_is_refused(moment: datetime) -> None:
    """The ends of the calendar raise the error of every wrong value."""
    with pytest.raises(EventError, match="expected a time whose year in UTC is from 1 to 9999"):
        finished("A", time=moment)


@pytest.mark.parametrize(
    ("event", "source", "subject"),
    [
        (finished("A", attempt=3), "/workflows/W/1", "r/A/3"),
        (finished("A", attempt=None), "/workflows/W/1", "r/A"),
        (make(WorkflowStarted), "/workflows/W/1", "r"),
        (make(WorkflowStarted, workflow_name="a/b ü"), "/workflows/a%2Fb%20%C3%BC/1", "r"),
        (finished("line\nbreak"), "/workflows/W/1", "r/line\N{REPLACEMENT CHARACTER}break/1"),
    ],
)
def test_source_and_subject_say_what_it_is_about(event: Event, source: str, subject: str) -> None:
    """The source is the workflow, percent-encoded; the subject is run, task and attempt, on one line."""
    assert (source, subject) == (event.source, event.subject)


def test_an_event_knows_its_run() -> None:
    """The event has the values of the given identity."""
    attempt = Attempt(Run("W", "1", "r", 7), "A", attempt=2, max_attempts=3)

    event = TaskFinished(time=NOON, reported_by=Reporter.TASK, **identity_of(attempt))

    assert attempt.run == event.run
    assert (event.task_name, event.attempt, event.max_attempts) == ("A", 2, 3)
    assert identity_of(attempt.run) == {
        "workflow_name": "W",
        "workflow_version": "1",
        "run_id": "r",
        "recipe_run_id": 7,
    }


@pytest.mark.parametrize("value", [True, -1, 1.5, "x", 2**63])
def test_a_recipe_run_id_is_checked_in_an_event_too(value: object) -> None:
    """An event cannot state an id that no run can have."""
    with pytest.raises(EventError, match="expected an integer or decimal digits"):
        finished("A", recipe_run_id=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "many"], ids=["nan", "inf", "huge", "text"])
def test_progress_is_a_number(value: object) -> None:
    """A number that JSON or other languages cannot represent is refused."""
    with pytest.raises(EventError, match="done"):
        make(TaskProgressed, "A", sequence=0, done=value)


POINTS = [(0.0, 1, 2.0, 3.0, 4.0)]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"resources": {"peakRss": -1}}, "resources.peakRss: expected an integer from 0 to 2^63 - 1"),
        ({"resources": {"peak_rss": -1}}, "resources.peakRss: expected an integer from 0 to 2^63 - 1"),
        ({"resources": {"rss": None, "cpuLimit": "many"}}, "resources.cpuLimit: expected a number from 0"),
        ({"resources": {"ioPressureSeconds": float("inf")}}, "resources.ioPressureSeconds: expected a number from 0"),
        ({"resources": [1]}, "resources: expected an object"),
        ({"profile": POINTS * 61}, "profile: expected an array of at most 60"),
        ({"profile": [*POINTS, (1, 2, 3)]}, "profile[1]: expected an array of 5"),
        ({"profile": [(0, 1.5, 2, 3, 4)]}, "profile[0][1]: expected an integer from 0 to 2^63 - 1"),
        ({"profile": [(0, 1, float("nan"), 3, 4)]}, "profile[0][2]: expected a number from 0"),
        ({"profile": 7}, "profile: expected an array of at most 60"),
        ({"last_log_age_seconds": -1}, "last_log_age_seconds: expected a number from 0"),
    ],
)
def test_a_measurement_that_cannot_be_is_one_error_that_names_its_place(facts: dict[str, Any], problem: str) -> None:
    """In a report as in a message; the found value is in the error about the message alone."""
    with pytest.raises(EventError, match=re.escape(problem)):
        failed("A", **facts)


def test_resources_alone_are_checked_too() -> None:
    """The error names the fields as in Python."""
    with pytest.raises(EventError, match=r"^peak_rss: expected an integer .*; cpu_limit: expected a number from 0$"):
        Resources(peak_rss=-1, cpu_limit=float("nan"))


@pytest.mark.parametrize(
    "facts", [{"cpuUserSeconds": 1.5, "rchar": 7, "invCtxt": 2}, {"cpu_user_seconds": 1.5, "rchar": 7, "inv_ctxt": 2}]
)
def test_resources_may_be_given_as_facts(facts: dict[str, Any]) -> None:
    """By their names in JSON or in Python, as a task sends them; unknown ones are of a newer release."""
    stated = Resources(cpu_user_seconds=1.5, rchar=7, inv_ctxt=2)

    event = finished("A", resources=facts | {"gpu_seconds": 1})

    assert event.resources == stated
    assert msgspec.to_builtins(stated) == {"cpuUserSeconds": 1.5, "rchar": 7, "invCtxt": 2}


def test_acknowledging_is_no_part_of_the_fact() -> None:
    """An event from a subscription is equal to the published one, and its `ack` reaches the bus."""
    calls: list[str] = []
    published = finished("A")

    received = published.with_acknowledgement(lambda: calls.append("ack"))
    received.ack()
    published.ack()

    assert published == received
    assert calls == ["ack"]
    assert encode(published) == encode(received)


def test_redaction_reaches_free_text_and_no_name() -> None:
    """Texts of authors, exceptions and Airflow are redacted; the name of a task is unchanged."""
    before = failed("secret", message="a secret", stack="secret", log_url="//secret", error_type="secret")

    after = before.redacted(lambda text: text.replace("secret", "[redacted]"))

    assert (after.message, after.stack, after.log_url) == ("a [redacted]", "[redacted]", "//[redacted]")
    assert (after.task_name, after.error_type, after.id) == ("secret", "secret", before.id)


@pytest.mark.parametrize(
    "event",
    [
        progressed("A", 0, note="secret", unit="secret"),
        make(TaskSampled, "A", sequence=0, top_frame="secret"),
        failed("A", last_stack="secret", last_log="secret", last_phase="secret", last_progress="secret"),
        make(WorkflowFailed, reason="secret"),
    ],
)
def test_what_people_write_is_redacted_in_every_event(event: Event) -> None:
    """Free text of every event is redacted before it is sent."""
    assert b"secret" not in encode(event.redacted(lambda text: text.replace("secret", "")))


# Texts that name something, or come from a fixed set of values: they are not redacted.
NAMES = {
    *("traceparent", "tracestate", "workflow_name", "workflow_version", "run_id", "task_name", "tasks", "phases"),
    *("queue", "worker", "host", "phase", "error_type", "fingerprint", "signal"),
}


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
@given(data=st.data())
def test_each_text_of_an_event_is_a_name_or_is_redacted(event_class: type[Event], data: st.DataObject) -> None:
    """A new field must be one or the other: `FreeText`, or in the list of names above."""
    form = form_of(event_class)
    event = data.draw(events_of(event_class))

    assert {*form.texts, *form.tables} - {"graph"} == {*form.free_text, *(NAMES & set(form.types))}
    blanked = event.redacted(lambda _: "[blank]")
    for name in form.free_text:
        assert getattr(blanked, name) == (None if getattr(event, name) is None else "[blank]")


# Events as values


class _Text(str):
    """An author's text class, whose methods must not be called."""

    __slots__ = ()

    def isascii(self) -> bool:
        raise AssertionError

    def __str__(self) -> str:
        raise AssertionError


class _Number(float):
    pass


class _Time(datetime):
    pass


def test_values_of_subclasses_become_python_s_own() -> None:
    """Values of numpy and pandas, or times of a scheduler, are converted without calling their methods."""
    time = _Time(2026, 11, 22, 12, tzinfo=UTC)

    event = finished(_Text("A"), time=time, duration_seconds=_Number(1.5), phases={_Text("run"): _Number(2)})

    assert (event.task_name, event.time, event.duration_seconds, event.phases) == ("A", NOON, 1.5, {"run": 2.0})
    values = (event.task_name, event.time, event.duration_seconds, *event.phases.items())
    kinds = [type(part) for value in values for part in (value if isinstance(value, tuple) else (value,))]
    assert kinds == [str, datetime, float, str, float]
    assert event == decode(encode(event))


@given(event=events())
def test_copies_are_equal_and_state_the_same(event: Event) -> None:
    """In this process and in another; two events are equal if they have one class and state the same facts."""
    received = event.with_acknowledgement(lambda: None, NOON)

    for copied in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event)), structs.replace(event)):
        assert (copied, copied.id, encode(copied)) == (event, event.id, encode(event))
    assert copy.copy(received).received_at == received.redacted(str.upper).received_at == NOON
    assert event != structs.replace(event, run_id=f"{event.run_id}-other")


def test_an_event_without_a_table_can_be_a_key() -> None:
    """An event with a table is as unhashable as the table."""
    assert {started("A"): 1}[started("A")] == 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(finished("A"))


def test_the_error_about_a_value_does_not_hold_it() -> None:
    """A traceback would show its context."""
    with pytest.raises(EventError, match="reported_by: expected one of 'task'") as refused:
        finished("A", reported_by="hunter2secret")

    assert refused.value.__context__ is None
    assert "hunter2" not in str(refused.value)


# Size


def profile_of(count: int) -> Profile:
    """Return a profile of so many points, whose numbers have all digits that a float can have."""
    return tuple((place + 1 / 3, 2**53 - place, 1 / 3, 1e9 / 7, 1e9 / 7) for place in range(count))


def bare(event: Event) -> Event:
    """Return the event without all text that may be cut."""
    optional = [field.name for field in structs.fields(event) if not field.required]
    empty: dict[str, Any] = {
        name: {} if isinstance(getattr(event, name), dict) else None
        for name in optional
        if isinstance(getattr(event, name), str | dict | Graph | Resources | tuple)
    }
    return structs.replace(event, **empty, truncated=True)


def assert_cut_by_the_rules(event: Event) -> None:
    """Check size, mark and order, and the kept part of each text."""
    cut, within = fit(event), event.within_limits()

    if len(encode(within)) <= MAX_ENCODED_BYTES:
        assert within == cut
        return
    assert cut.truncated
    assert len(encode(cut)) <= MAX_ENCODED_BYTES or cut == bare(event)
    assert cut == decode(encode(cut))
    assert all(getattr(event, name, None) == getattr(cut, name, None) for name in IDENTITY)
    changed = [name for name in event.__struct_fields__ if getattr(event, name) != getattr(cut, name)]
    listed = [(kind, name) for kind, name in form_of(type(event)).cuts if getattr(within, name)]
    for (kind, earlier), (_, later) in pairwise(listed):
        left = getattr(cut, earlier)
        is_done = "\n\n" not in (left or "").removesuffix(f"\n\n{CUT}") if kind is Cut.THREADS else not left
        assert is_done or earlier == later or getattr(within, later) == getattr(cut, later)
    for name in set(changed) & TEXTS_CUT:
        before, after = getattr(event, name), getattr(cut, name)
        if after and name in {"stack", "last_log"}:
            assert after.startswith(f"{CUT}\n")
            assert before.endswith(after.removeprefix(f"{CUT}\n"))
        elif after:
            assert after.endswith(CUT)
            assert before.startswith(after.removesuffix(CUT).removesuffix("\n\n"))


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
@settings(max_examples=10)
@given(data=st.data())
def test_no_event_is_larger_than_the_bus_carries(event_class: type[Event], data: st.DataObject) -> None:
    """However long its texts are, an event is cut by the rules, except for its identity."""
    large = {
        name: st.none() | LARGE
        for name in event_class.__struct_fields__
        if name in TEXTS_CUT | {"log_url", "error_type", "unit", "host", "tracestate", "top_frame"}
    }
    if "profile" in event_class.__struct_fields__:
        large["profile"] = st.integers(0, 60).map(profile_of)
    if "tasks" in event_class.__struct_fields__:
        names = st.integers(0, 5000)
        large["tasks"] = names.map(lambda count: {f"Task{number}": "success" for number in range(count)})

    assert_cut_by_the_rules(data.draw(events_of(event_class, **large)))


@settings(max_examples=10)
@given(event=events_of(TaskFailed, task_name=LARGE.map(lambda name: name[:65_536]), stack=LARGE, message=LARGE))
def test_identity_is_never_cut(event: Event) -> None:
    """If the name alone is too long, all other text is removed, and the name stays."""
    assert_cut_by_the_rules(event)


def test_the_end_of_a_stack_and_the_beginning_of_a_message_are_kept() -> None:
    """They contain the place and the kind of the error."""
    event = fit(failed("A", message="ValueError: it began here", stack="far " * 50_000 + "near"))

    assert event.stack is not None
    assert event.stack.startswith(f"{CUT}\n")
    assert event.stack.endswith("far near")
    assert event.message == "ValueError: it began here"
    assert MAX_ENCODED_BYTES - 10 <= len(encode(event)) <= MAX_ENCODED_BYTES


def test_a_message_is_cut_only_when_the_stack_is_gone() -> None:
    """The stack is cut first, then the message."""
    event = fit(failed("A", message="what " * 50_000, stack="where"))

    assert event.stack is None
    assert event.message is not None
    assert event.message.startswith("what what")
    assert event.message.endswith(CUT)


def test_a_graph_goes_whole_and_a_note_in_part() -> None:
    """Half a graph would be wrong."""
    names = tuple(f"Task{number}" for number in range(10_000))

    start = fit(make(WorkflowStarted, graph=Graph(nodes=names, edges=())))
    progress = fit(progressed("A", 0, note="n" * 100_000))

    assert (start.graph, start.truncated) == (None, True)
    assert progress.note is not None
    assert len(progress.note) > 60_000


def test_of_too_many_tasks_those_that_did_not_succeed_are_named() -> None:
    """The event of a run with thousands of mapped instances still names the failed ones."""
    states = {f"Task[{number}]": "failed" if number % 1000 == 999 else "success" for number in range(10_000)}

    end = fit(make(WorkflowFailed, tasks=states))

    assert [name for name, state in states.items() if state == "failed"] == list(end.tasks)[:10]
    assert 1000 < len(end.tasks) < 10_000


def test_of_a_long_log_the_last_lines_are_kept_and_of_a_long_stack_the_first_threads() -> None:
    """Each has a separate limit, also in an event that has room for more."""
    log = "".join(f"line {number}\n" for number in range(5000))
    stack = "\n\n".join(f'Thread "T{number}":\n' + "  a.py:1 in work\n" * 50 for number in range(200))

    event = failed("A", last_log=log, last_stack=stack).within_limits()

    assert event.last_log is not None
    assert event.last_stack is not None
    assert len(event.last_log) == 8 * 1024
    assert event.last_log.startswith(f"{CUT}\n")
    assert event.last_log.endswith("line 4998\nline 4999\n")
    *whole, mark = event.last_stack.split("\n\n")
    assert (whole, mark) == (stack.split("\n\n")[: len(whole)], CUT)
    assert 16 * 1024 - 900 < len(event.last_stack) <= 16 * 1024
    assert event.truncated


def test_of_one_thread_that_is_too_deep_the_inner_frames_are_kept() -> None:
    """The deepest frame is the first."""
    frames = 'Thread "MainThread":\n' + "".join(f"  a.py:{number} in work\n" for number in range(5000))

    event = failed("A", last_stack=f'{frames}\n\nThread "B":\n  b.py:1 in wait').within_limits()

    assert event.last_stack is not None
    assert event.last_stack.startswith('Thread "MainThread":\n  a.py:0 in work\n')
    assert event.last_stack.endswith(CUT)
    assert len(event.last_stack) == 16 * 1024
    assert '"B"' not in event.last_stack


def test_a_profile_of_many_digits_keeps_its_peak_in_half_its_points() -> None:
    """A point for two has the larger memory, the later time and the mean of the rates."""
    points = profile_of(59)
    points = (*points[:20], (20.5, 2**60, 3.0, 0.0, 0.0), *points[21:])

    event = finished("A", profile=points).within_limits()

    assert event.profile is not None
    assert len(event.profile) == 30
    assert event.profile[10] == (points[21][0], 2**60, (3.0 + points[21][2]) / 2, points[21][3] / 2, points[21][4] / 2)
    assert event.profile[-1] == points[-1]
    assert event.truncated


def test_what_is_cut_to_make_room_is_the_log_first_then_other_threads_and_the_profile() -> None:
    """The message of a killed task and its deepest frames are the last that go."""
    quotes = '"' * 4000
    threads = [f'Thread "T{number}":\n  a.py:{number} in f\n{quotes}' for number in range(4)]
    facts = {"last_log": "\n" * 8000, "last_stack": "\n\n".join(threads), "profile": profile_of(30)}
    left = []
    for length in (12_000, 20_000, 32_000, 50_000, 55_000, 60_000, 70_000):
        event = fit(failed("A", message="m" * length, **facts))
        stack, points, message = event.last_stack or "", event.profile or (), event.message or ""
        left.append((len(event.last_log or ""), stack.count("Thread"), len(points), len(message)))

    assert left == [
        (8000, 4, 30, 12_000),
        (5001, 4, 30, 20_000),
        (0, 3, 30, 32_000),
        (0, 1, 30, 50_000),
        (0, 1, 15, 55_000),
        (0, 1, 0, 60_000),
        (0, 0, 0, 65_017),
    ]


def test_an_event_that_fits_exactly_is_left_alone() -> None:
    """The limit is the largest allowed size."""
    room = MAX_ENCODED_BYTES - len(encode(failed("A", message="")))

    exact, over = failed("A", message="x" * room), failed("A", message="x" * (room + 1))

    assert exact == fit(exact)
    assert fit(over).truncated


# The page


def sections() -> dict[str, str]:
    """Return the text below each heading of the page that names an event."""
    parts = re.split(r"^## `([a-z.]+)`$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@generated_by("make events")
def test_the_page_has_a_section_for_every_event() -> None:
    """The sections are in the order of the union."""
    assert [event_class.name for event_class in EVENT_CLASSES] == list(sections())


@generated_by("make events")
def test_the_page_is_in_step_with_the_classes() -> None:
    """`make events` writes it again."""
    assert page(PAGE.read_text()) == PAGE.read_text()


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
def test_each_field_stands_in_the_section_of_its_event(event_class: type[Event]) -> None:
    """All but those that a section about several events lists."""
    shared = {
        field for each in SHARED.values() if issubclass(event_class, each) for field in each.__struct_encode_fields__
    }
    own = set(event_class.__struct_encode_fields__) - shared

    section = sections()[event_class.name]
    assert {field for field in own if f"\n| `{field}` |" not in section} == set()


class TaskCounted(TaskEnd, frozen=True, kw_only=True, dict=True):
    """Signals that an attempt ended, with a count."""

    name: ClassVar[str] = "task.counted"

    frames: Annotated[Count | None, about("How many frames were written.")] = None


def test_the_first_field_of_an_event_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A section without a table has no place for it before; all else of the page stays."""
    monkeypatch.setattr("dkist_processing_core.events.page.EVENT_CLASSES", (TaskCounted,))
    title, example, following = "# Events\n\n## `task.counted`", "```json\n{}\n```", "## Further\n\nText.\n"

    after = page(f"{title}\n\nSignals an end.\n\n{example}\n\n{following}")

    doc = "Signals that an attempt ended, with a count."
    rows = "| field | type | meaning |\n|---|---|---|\n| `frames` | integer | How many frames were written. |"
    assert after == f"{title}\n\n{doc}\n\n{rows}\n\n{example}\n\n{following}"
    assert page(after) == after


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
def test_a_section_that_is_missing_is_made_with_an_example(event_class: type[Event]) -> None:
    """This is so for a new class of events."""
    title = f"\n## `{event_class.name}`\n"
    before, _, rest = PAGE.read_text().partition(title)
    without = before + rest[rest.find("\n## ") :] if "\n## " in rest else before

    made = page(without)

    assert made.startswith(without)
    assert made.removeprefix(without).startswith(title)
    assert table(event_class) in made
    (example,) = re.findall(r"```json\n(.*?)```", made.removeprefix(without), flags=re.DOTALL)
    assert isinstance(decode(example.encode()), event_class)


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda event_class: event_class.name)
def test_the_example_on_the_page_is_that_event(event_class: type[Event]) -> None:
    """It can be decoded, and its message is exactly the text of the page; so is a further example."""
    examples = re.findall(r"```json\n(.*?)```", sections()[event_class.name], flags=re.DOTALL)

    shown = [decode(example.encode()) for example in examples]

    assert {type(event) for event in shown} == {event_class}
    assert [json.loads(example) for example in examples] == [json.loads(encode(event)) for event in shown]


def test_the_summary_of_a_failure_has_the_type_of_its_error() -> None:
    """
    The message of a KeyError alone is no sentence.
    """
    failure = make(TaskFailed, "A", cause="exception", phase="run", error_type="builtins.KeyError", message="'missing'")

    assert failure.summary == "exception in run: KeyError: 'missing'"
    assert make(TaskFailed, "A", cause="exit_code", exit_code=3, message="\n two\t words \n more").summary == (
        "exit code 3: two words"
    )


@pytest.mark.parametrize(
    ("facts", "summary"),
    [
        ({"cause": "signal", "signal": "SIGKILL", "message": "the task was killed by SIGKILL"}, "signal SIGKILL"),
        (
            {"cause": "signal", "signal": "SIGSEGV", "phase": "run", "message": "the task was killed by SIGSEGV"},
            "signal SIGSEGV in run",
        ),
        ({"cause": "exit_code", "exit_code": 3, "message": "the process exited with status 3"}, "exit code 3"),
        (
            {"cause": "exit_code", "exit_code": 3, "message": "the process exited with status 4"},
            "exit code 3: the process exited with status 4",
        ),
        (
            {"cause": "lost", "exit_code": 3, "message": "the process exited with status 3"},
            "lost: the process exited with status 3",
        ),
    ],
)
def test_the_summary_of_a_failure_does_not_repeat_how_its_process_ended(facts: dict[str, Any], summary: str) -> None:
    """
    The message of the event states it as well, for readers of the fields.
    """
    assert make(TaskFailed, "A", **facts).summary == summary


FIRST_EVENTS = """
import sys, threading
from tests.facts import progressed

is_inside, is_over = threading.Event(), threading.Event()

def stop_inside(frame, kind, argument):
    # The functions that msgspec calls when it looks at a class.
    is_one = frame.f_code.co_filename.endswith(("enum.py", "_utils.py"))
    if is_one and frame.f_back.f_code.co_name == "_converted" and not is_inside.is_set():
        is_inside.set()
        is_over.wait(20.0)

def first():
    sys.settrace(stop_inside)
    progressed("A", 1)
    is_inside.set()

def second():
    is_inside.wait(20.0)
    progressed("A", 2)
    is_over.set()

threads = [threading.Thread(target=each) for each in (first, second)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_create_their_first_events_at_the_same_time() -> None:
    """Msgspec publishes what it knows about a class before it is complete, and another thread would crash there."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_EVENTS], cwd=PAGE.parents[2], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
