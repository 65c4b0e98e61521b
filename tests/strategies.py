"""
Hypothesis strategies: events of every class with any values, and reports of runs.
"""

from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from msgspec import inspect, structs

from dkist_processing_core.events import (
    EVENT_CLASSES,
    Cause,
    Event,
    Graph,
    Resources,
    TaskDispatched,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from tests.facts import NOON


def examples(factor: int) -> settings:
    """Return settings with `factor` times the examples of the profile in use."""
    return settings(max_examples=factor * settings().max_examples)


def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Return a strategy for any text that Python can hold, with control characters, lone surrogates and emoji."""
    awkward = st.sampled_from("\x00\x1b\r\n\t\x85\ud800\udfff🔭/%. ")
    characters = st.one_of(st.characters(exclude_categories=()), awkward)
    return st.text(characters, max_size=max_size)


def moments() -> st.SearchStrategy[datetime]:
    """Return a strategy for times in any zone that can be converted to UTC."""
    zones = st.one_of(st.just(UTC), st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))))
    return st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)  # noqa: DTZ001 - its bounds must be naive


# Fields whose values the type annotation does not restrict enough.
_GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "truncated": st.none() | st.just(value=True),
    "withdrawn": st.none() | st.just(value=True),
    "cause": st.sampled_from(Cause) | texts(),
}


def values_of(  # noqa: C901, PLR0911, PLR0912 - one case per type
    info: inspect.Type,
) -> st.SearchStrategy[Any]:
    """Return a strategy for any value that a field of this type can have."""
    match info:
        case inspect.Metadata(type=inner):
            return values_of(inner)
        case inspect.UnionType(types=types):
            return st.one_of([values_of(kind) for kind in types])
        case inspect.NoneType():
            return st.none()
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most)
        case inspect.BoolType():
            return st.booleans()
        case inspect.DateTimeType():
            return moments()
        case inspect.EnumType(cls=kind):
            return st.sampled_from(kind)
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values_of(key), values_of(value), max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values_of(item), max_size=3).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values_of, items))
        case inspect.StructType(cls=kind, fields=fields):
            return st.builds(kind, **{field.name: values_of(field.type) for field in fields})
    return texts()


def events_of(event_class: type[Event], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    """Return a strategy for events of one class, with any value in each field that is not in `given`."""
    info = inspect.type_info(event_class)
    assert isinstance(info, inspect.StructType)
    fields = {
        field.name: _GIVEN[field.name] if field.name in _GIVEN else values_of(field.type) for field in info.fields
    }
    return st.fixed_dictionaries(fields | given).map(lambda facts: event_class(**facts))


def events() -> st.SearchStrategy[Event]:
    """Return a strategy for events of every class."""
    return st.one_of([events_of(event_class) for event_class in EVENT_CLASSES])


REPORTED_CLASSES: tuple[type[Event], ...] = (
    WorkflowStarted,
    WorkflowFinished,
    WorkflowFailed,
    TaskDispatched,
    TaskStarted,
    TaskProgressed,
    TaskSampled,
    TaskFinished,
    TaskFailed,
    TaskSkipped,
    TaskOverdue,
    WorkflowOverdue,
)


@cache  # for seconds, each process that collects the tests would make it again for each of them
def _report_of(event_class: type[Event]) -> st.SearchStrategy[Event]:
    """Return a strategy for events about so few subjects that several events have the same subject."""
    instants = st.integers(0, 6).map(lambda minutes: NOON + timedelta(minutes=minutes))
    few: dict[str, st.SearchStrategy[Any]] = {
        "time": instants,
        "workflow_name": st.just("W"),
        "workflow_version": st.just("1"),
        "run_id": st.sampled_from(["r", "hand__1"]),
        "recipe_run_id": st.just(1),
        "started_at": instants,
        "ended_at": instants,
        "graph": st.none() | st.just(Graph(nodes=("A", "B"), edges=(("A", "B"),))),
        "tasks": st.dictionaries(
            st.sampled_from("AB"), st.sampled_from(["success", "failed", "upstream_failed", "skipped", "no_status"])
        ),
        "task_name": st.sampled_from("AB"),
        "attempt": st.none() | st.integers(1, 3),
        "max_attempts": st.just(3),
        "sequence": st.integers(0, 3),
        "limit_seconds": st.just(60.0),
        "exceeded": st.sampled_from(["silence", "duration"]),
        "withdrawn": st.sampled_from([None, True]),
        "done": st.integers(0, 3),
        "resources": st.none() | st.builds(Resources, rss=st.integers(0, 2)),
        "profile": st.none() | st.just(((0.5, 1, 1.0, 0.0, 0.0),)),
        "sample_seconds": st.sampled_from([None, 30.0]),
        "message": st.sampled_from([None, "x", "y"]),
        "cause": st.sampled_from(Cause),
    }
    rest = {field.name: st.none() for field in structs.fields(event_class) if field.default is None}
    kept = {name: strategy for name, strategy in few.items() if name in event_class.__struct_fields__}
    if issubclass(event_class, TaskEvent):
        kept |= {"phases": st.just({})} if "phases" in event_class.__struct_fields__ else {}
    return events_of(event_class, **rest | kept)


def reports() -> st.SearchStrategy[list[Event]]:
    """Return a strategy for reports of two runs, true or false, in any order."""
    return st.lists(st.one_of([_report_of(event_class) for event_class in REPORTED_CLASSES]), max_size=14)
