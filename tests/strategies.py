"""
Hypothesis strategies: events of every class with arbitrary values, and the reports that a run may get.
"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from dkist_processing_core.events import (
    EVENT_CLASSES,
    Cause,
    Event,
    Graph,
    Reporter,
    TaskDispatched,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from tests.facts import NOON

MAX_NUMBER = 2**63 - 1


def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Return any text that Python can hold: control characters, lone surrogates and emoji too."""
    awkward = st.sampled_from("\x00\x1b\r\n\t\x85\ud800\udfff🔭/%. ")
    characters = st.one_of(st.characters(exclude_categories=()), awkward)
    return st.text(characters, max_size=max_size)


def moments() -> st.SearchStrategy[datetime]:
    """Return times in any zone, all of which have a place in UTC."""
    zones = st.one_of(st.just(UTC), st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))))
    return st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)  # noqa: DTZ001 - as it wants them


_TEXT = texts()
_MAYBE_TEXT = st.none() | _TEXT
_SECONDS = st.floats(0, allow_infinity=False)
_NUMBERS = st.integers(-MAX_NUMBER, MAX_NUMBER) | st.floats(allow_nan=False, allow_infinity=False)
_COUNTS = st.integers(0, MAX_NUMBER)
_ORDINALS = st.integers(1, MAX_NUMBER)

# What a field may hold, by its name: a name means the same in every class.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "time": moments(),
    "reported_by": st.sampled_from(Reporter),
    "traceparent": _MAYBE_TEXT,
    "tracestate": _MAYBE_TEXT,
    "workflow_name": _TEXT,
    "workflow_version": _TEXT,
    "run_id": _TEXT,
    "recipe_run_id": _COUNTS,
    "truncated": st.none() | st.just(value=True),
    "started_at": st.none() | moments(),
    "ended_at": st.none() | moments(),
    "graph": st.none()
    | st.builds(Graph, nodes=st.lists(_TEXT, max_size=3), edges=st.lists(st.tuples(_TEXT, _TEXT), max_size=3)),
    "tasks": st.dictionaries(_TEXT, _TEXT, max_size=3),
    "reason": _MAYBE_TEXT,
    "task_name": _TEXT,
    "attempt": st.none() | _ORDINALS,
    "max_attempts": st.none() | _ORDINALS,
    "queue": _MAYBE_TEXT,
    "worker": _MAYBE_TEXT,
    "queued_seconds": st.none() | _SECONDS,
    "host": _MAYBE_TEXT,
    "pid": st.none() | _COUNTS,
    "environment": st.sampled_from([None, "built", "reused"]),
    "environment_seconds": st.none() | _SECONDS,
    "sequence": _COUNTS,
    "done": _NUMBERS,
    "total": st.none() | _NUMBERS,
    "unit": _MAYBE_TEXT,
    "note": _MAYBE_TEXT,
    "provisional": st.booleans(),
    "duration_seconds": st.none() | _SECONDS,
    "cpu_seconds": st.none() | _SECONDS,
    "peak_memory_bytes": st.none() | _COUNTS,
    "phases": st.dictionaries(_TEXT, _SECONDS, max_size=3),
    "final": st.none() | st.booleans(),
    "cause": st.sampled_from(Cause) | _TEXT,
    "phase": _MAYBE_TEXT,
    "error_type": _MAYBE_TEXT,
    "message": _MAYBE_TEXT,
    "stack": _MAYBE_TEXT,
    "fingerprint": _MAYBE_TEXT,
    "exit_code": st.none() | st.integers(-MAX_NUMBER, MAX_NUMBER),
    "signal": _MAYBE_TEXT,
    "log_url": _MAYBE_TEXT,
    "limit_seconds": _SECONDS,
    "last_sign_at": st.none() | moments(),
}


def events_of(event_class: type[Event], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    """Return events of one class, with any value in every field that is not given."""
    fields = {name: FIELDS[name] for name in event_class.model_fields}
    # Not `builds`, which would add values of its own for the aliases that the constructor takes too.
    return st.fixed_dictionaries(fields | given).map(lambda facts: event_class(**facts))


def events() -> st.SearchStrategy[Event]:
    """Return events of every class."""
    return st.one_of([events_of(event_class) for event_class in EVENT_CLASSES])


REPORTED_CLASSES: tuple[type[Event], ...] = (
    WorkflowStarted,
    WorkflowFinished,
    WorkflowFailed,
    TaskDispatched,
    TaskStarted,
    TaskProgressed,
    TaskFinished,
    TaskFailed,
    TaskSkipped,
)


def _report_of(event_class: type[Event]) -> st.SearchStrategy[Event]:
    """Return events about so few subjects that several of them are about the same."""
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
        "done": st.integers(0, 3),
        "message": st.sampled_from([None, "x", "y"]),
        "cause": st.sampled_from(Cause),
    }
    rest = {name: st.none() for name, field in event_class.model_fields.items() if field.default is None}
    kept = {name: strategy for name, strategy in few.items() if name in event_class.model_fields}
    if issubclass(event_class, TaskEvent):
        kept |= {"phases": st.just({})} if "phases" in event_class.model_fields else {}
    return events_of(event_class, **rest | kept)


def reports() -> st.SearchStrategy[list[Event]]:
    """Return what may be reported of two runs, true or not, in any order."""
    return st.lists(st.one_of([_report_of(event_class) for event_class in REPORTED_CLASSES]), max_size=14)
