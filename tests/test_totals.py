"""
The totals of ended attempts and runs: each is counted once, however often and in which order it is reported.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, select, update
from sqlalchemy.pool import StaticPool

from dkist_processing_core import semconv
from dkist_processing_core.collect.folding import totals
from dkist_processing_core.collect.folding.counting import SETTLED_SECONDS, Increment
from dkist_processing_core.collect.measurements import measurements_of
from dkist_processing_core.collect.store import KEPT_SECONDS, Store
from dkist_processing_core.collect.tables import COUNTED, METADATA, RUNS, TOTALS
from dkist_processing_core.events import (
    Event,
    TaskDispatched,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.identity.trace_context import format_traceparent
from dkist_processing_core.inbox import Database
from dkist_processing_core.metrics.declarations import ATTEMPT_DURATION, ATTEMPT_ENDED
from dkist_processing_core.metrics.measurement import Distribution, Number
from dkist_processing_core.runs import AttemptView, State, kept_reports, run_view
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, make, started
from tests.stored import ended_run, running_run
from tests.strategies import reports

NOW = NOON + timedelta(minutes=5)
SETTLED = NOW + timedelta(seconds=SETTLED_SECONDS)
_RESULTS = {State.FINISHED: "success", State.SKIPPED: "skip", State.NOT_RUN: "cancellation"}
Outcomes = Counter[tuple[str, str, str, str]]


@contextmanager
def emptied() -> Iterator[Engine]:
    """
    Yield a store in memory.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection() -> Iterator[Connection]:
    """
    A store in memory, in one transaction.
    """
    with emptied() as engine, engine.begin() as connection:
        yield connection


def take_in(connection: Connection, received: Iterable[Event], at: datetime = NOW) -> None:
    """
    Add reports to a store, and fold them.
    """
    store = Store(clock=at.timestamp)
    for report in received:
        store.add(connection, report)
    while store.fold(connection, 2):
        pass


def found(connection: Connection, name: str) -> list[Number | Distribution]:
    """
    Return the values of a metric.
    """
    (measurement,) = (each for each in measurements_of(connection) if each.metric.name == name)
    return list(measurement.values)


def outcomes(connection: Connection) -> Outcomes:
    """
    Return the counted attempts by workflow, task, result and cause.
    """
    names = (semconv.PIPELINE_NAME, semconv.PIPELINE_TASK_NAME, semconv.PIPELINE_TASK_RUN_RESULT, semconv.ERROR_TYPE)
    counts: Outcomes = Counter()
    for each in found(connection, "dkist.core.attempt.ended"):
        assert isinstance(each, Number)
        values = [each.attributes.get(name, "") for name in names]
        counts[values[0], values[1], values[2], values[3]] += int(each.value)
    return counts


def revised(connection: Connection) -> float:
    """
    Return the number of attempts whose outcome has changed after they were counted.
    """
    return sum(each.value for each in found(connection, "dkist.core.attempt.revised") if isinstance(each, Number))


def plain_count(received: Iterable[Event]) -> Outcomes:
    """
    Return the outcomes of all attempts that have ended, in the state that all reports give together.
    """
    by_run: dict[Any, list[Event]] = {}
    for report in received:
        by_run.setdefault((report.workflow_name, report.workflow_version, report.run_id), []).append(report)
    counts: Outcomes = Counter()
    for of_run in by_run.values():
        view = run_view(kept_reports(of_run), received_at=NOW)
        for task in view.tasks:
            for attempt in task.attempts:
                if attempt.state.is_end:
                    counts[view.run.workflow_name, task.name.partition("[")[0], *outcome(attempt)] += 1
    return counts


def outcome(attempt: AttemptView) -> tuple[str, str]:
    """
    Return result and cause of an attempt that has ended.
    """
    if attempt.state is not State.FAILED:
        return _RESULTS[attempt.state], ""
    return semconv.result_of(attempt.cause or ""), attempt.cause or ""


@given(st.lists(reports(), max_size=4))
def test_totals_are_those_of_a_plain_count_in_whatever_parts_reports_arrive(parts: list[list[Event]]) -> None:
    """
    Each attempt that has ended is counted once, with its final outcome unless a firm report was contradicted later.
    """
    received = [report for part in parts for report in part]
    with emptied() as engine, engine.begin() as connection:
        for part in parts:
            take_in(connection, [*part, *part])
        take_in(connection, [], SETTLED)
        take_in(connection, received, SETTLED)
        counted, changed = outcomes(connection), revised(connection)

    expected = plain_count(received)
    assert counted.total() >= expected.total()
    if not changed:
        assert counted >= expected


@given(reports())
def test_totals_of_reports_that_arrive_together_are_those_of_a_plain_count(received: list[Event]) -> None:
    """
    Without an earlier state no attempt is counted by a report that others contradict, and none twice.
    """
    with emptied() as engine, engine.begin() as connection:
        take_in(connection, received)
        take_in(connection, [], SETTLED)
        counted, changed = outcomes(connection), revised(connection)

    assert counted == plain_count(received)
    assert changed == 0


def provisional(**facts: Any) -> Event:
    """
    Return the failure of the first attempt of A as an engine reports it.
    """
    return failed("A", **{"reported_by": "engine", "provisional": True, "cause": "lost"} | facts)


def distribution(connection: Connection, name: str) -> Distribution:
    """
    Return the only value of a histogram.
    """
    (value,) = found(connection, name)
    assert isinstance(value, Distribution)
    return value


def test_a_provisional_end_is_counted_by_the_firm_one_that_replaces_it(connection: Connection) -> None:
    """
    An engine reports a failure of an attempt that has succeeded; a counter could not be corrected later.
    """
    take_in(connection, [started("A"), provisional()])
    before = outcomes(connection)
    take_in(connection, [finished("A", reported_by="launcher")])

    assert before == {}
    assert outcomes(connection) == {("W", "A", "success", ""): 1}
    assert revised(connection) == 0


def test_a_provisional_end_is_counted_after_a_minute_without_a_firm_one(connection: Connection) -> None:
    """
    Its run is folded again then, without a new report. A firm end that is even later is counted as a revision.
    """
    take_in(connection, [started("A"), provisional()])
    take_in(connection, [], SETTLED - timedelta(seconds=1))
    before = outcomes(connection)
    take_in(connection, [], SETTLED)
    counted = outcomes(connection)
    take_in(connection, [finished("A", reported_by="launcher")], SETTLED)

    assert before == {}
    assert counted == outcomes(connection) == {("W", "A", "error", "lost"): 1}
    assert revised(connection) == 1


def test_a_cause_that_the_engine_knows_better_is_waited_for(connection: Connection) -> None:
    """
    The launcher sees a termination from outside, and the engine that it was a timeout.
    """
    take_in(connection, [started("A"), failed("A", reported_by="launcher", cause="terminated")])
    take_in(connection, [provisional(cause="timeout")])
    take_in(connection, [], SETTLED)

    assert outcomes(connection) == {("W", "A", "timeout", "timeout"): 1}


def test_an_attempt_whose_number_was_not_known_is_counted_once(connection: Connection) -> None:
    """
    The engine reports a lost task without the number of its attempt; the reports of the attempt arrive later.
    """
    take_in(connection, [provisional(attempt=None)])
    take_in(connection, [], SETTLED)
    take_in(connection, [started("A"), failed("A", cause="lost")], SETTLED)
    take_in(connection, [], SETTLED + timedelta(seconds=SETTLED_SECONDS))

    assert outcomes(connection) == {("W", "A", "error", "lost"): 1}
    assert revised(connection) == 0


def test_instances_of_a_mapped_task_are_counted_together(connection: Connection) -> None:
    """
    Their number has no limit, and each label of a metric costs memory.
    """
    take_in(connection, [started("A[0]"), finished("A[0]"), started("A[1]"), started("A[2]")])

    active = found(connection, "dkist.core.attempt.active")
    assert outcomes(connection) == {("W", "A", "success", ""): 1}
    assert [(each.attributes[semconv.PIPELINE_TASK_NAME], getattr(each, "value", 0)) for each in active] == [("A", 2)]


def test_histograms_have_the_measures_of_an_attempt_and_its_span(connection: Connection) -> None:
    """
    Each value has an exemplar, with the ids of the attempt's span from the traceparent of its reports.
    """
    trace_id, span_id = 0x1234, 0x5678
    context = {"reported_by": "launcher", "traceparent": format_traceparent(trace_id, span_id)}
    take_in(
        connection,
        [
            make(TaskDispatched, "A", queued_seconds=42.0, **context),
            make(TaskStarted, "A", environment="built", environment_seconds=7.0, **context),
            finished("A", duration_seconds=3.0, peak_memory_bytes=1 << 28, **context),
        ],
    )

    for name, bucket, value in (
        ("dkist.core.attempt.duration", 3, 3.0),
        ("dkist.core.attempt.environment.duration", 7, 7.0),
        ("dkist.core.attempt.queue.duration", 5, 42.0),
        ("dkist.core.attempt.memory.peak", 1, float(1 << 28)),
    ):
        measured = distribution(connection, name)
        (exemplar,) = measured.exemplars.values()
        assert (measured.total, sum(measured.counts), measured.counts[bucket]) == (value, 1, 1), name
        assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (value, f"{trace_id:032x}", f"{span_id:016x}")
    environment = distribution(connection, "dkist.core.attempt.environment.duration")
    assert environment.attributes[semconv.ENVIRONMENT_STATE] == "built"


def ended(event_class: type[Event], seconds: float, **facts: Any) -> Event:
    """
    Return the end of the run.
    """
    at = NOON + timedelta(seconds=seconds)
    return make(event_class, time=at, reported_by="engine", ended_at=at, **facts)


def test_each_end_of_a_run_is_counted_once(connection: Connection) -> None:
    """
    A run that was cleared ends again; two reporters report the same end.
    """
    begun = make(WorkflowStarted, started_at=NOON, reported_by="engine")
    take_in(connection, [begun, ended(WorkflowFailed, 10), ended(WorkflowFailed, 10)])
    take_in(connection, [ended(WorkflowFinished, 99, duration_seconds=50.0), ended(WorkflowFailed, 10)])

    values = {
        each.attributes[semconv.PIPELINE_RESULT]: each for each in found(connection, "cicd.pipeline.run.duration")
    }
    assert {result: getattr(each, "total", 0) for result, each in values.items()} == {"failure": 10.0, "success": 50.0}
    assert [sum(getattr(each, "counts", ())) for each in values.values()] == [1, 1]


def test_a_run_that_seemed_to_be_lost_is_counted_once(connection: Connection) -> None:
    """
    The end of a lost run has no time; the end that the engine reports later is the same end.
    """
    begun = make(WorkflowStarted, started_at=NOON, reported_by="engine")
    lost = make(WorkflowFailed, reported_by="engine", reason="lost: its process has ended", duration_seconds=5.0)
    take_in(connection, [begun, lost])
    before = found(connection, "cicd.pipeline.run.duration")
    take_in(connection, [], SETTLED)
    after = [sum(getattr(each, "counts", ())) for each in found(connection, "cicd.pipeline.run.duration")]
    take_in(connection, [ended(WorkflowFinished, 10)], SETTLED)

    assert before == []
    assert after == [1]
    assert [sum(getattr(each, "counts", ())) for each in found(connection, "cicd.pipeline.run.duration")] == [1]


def test_runs_and_attempts_in_progress_are_numbers_of_the_present(connection: Connection) -> None:
    """
    The last event of a workflow remains when its runs have ended.
    """
    take_in(connection, [*ended_run(), *running_run(now=NOW)])

    active = found(connection, "cicd.pipeline.run.active")
    attempts = found(connection, "dkist.core.attempt.active")
    last = {
        each.attributes[semconv.PIPELINE_NAME]: each
        for each in found(connection, "dkist.core.workflow.last_event.time")
    }
    assert [(each.attributes[semconv.PIPELINE_NAME], getattr(each, "value", 0)) for each in active] == [
        ("l1_to_l2_dlnirsp", 1)
    ]
    assert attempts
    assert set(last) == {"l0_to_l1_visp", "l1_to_l2_dlnirsp"}
    assert getattr(last["l0_to_l1_visp"], "value", 0) == max(event.time for event in ended_run()).timestamp()


def test_no_counter_falls_when_runs_are_deleted_or_the_store_is_built_again(connection: Connection) -> None:
    """
    The reports of a store that is built again are counted no second time.
    """
    received = [*ended_run(), *running_run(now=NOW)]
    take_in(connection, received)
    take_in(connection, [], SETTLED)
    counted = outcomes(connection)
    Store(clock=SETTLED.timestamp).clear(connection)
    cleared = outcomes(connection)
    take_in(connection, received, SETTLED)
    again = outcomes(connection)
    later = SETTLED + timedelta(seconds=KEPT_SECONDS + SETTLED_SECONDS)
    store = Store(clock=later.timestamp)
    while store.prune(connection, 1):
        pass
    store.prune(connection, 10)

    assert counted == plain_count(received)
    assert counted == cleared == again == outcomes(connection)
    assert connection.scalars(select(RUNS.c.number)).all() == []
    assert connection.scalars(select(COUNTED.c.identity)).all() == []


def test_two_processes_that_share_a_store_count_each_attempt_once() -> None:
    """
    Each folds some of the reports that both have received, and both serve the same totals.
    """
    received = [*ended_run(), started("A"), finished("A"), started("B"), failed("B")]
    with closing(Database.open(None, read_settings())) as one, closing(Database.open(None, read_settings())) as other:
        for place, report in enumerate([*received, *received]):
            database = (one, other)[place % 2]
            with database.transaction() as transaction:
                take_in(transaction, [report], SETTLED)
        for database in (one, other):
            with database.transaction() as transaction:
                take_in(transaction, [], SETTLED + timedelta(seconds=SETTLED_SECONDS))
        served = []
        for database in (one, other):
            with database.reading() as connection:
                served.append(outcomes(connection))

    assert served[0] == served[1] == plain_count(received)


def test_attributes_of_any_number_take_limited_room(connection: Connection) -> None:
    """
    The sets of attributes above the limit are counted together, and those that exist go on.
    """

    def of(name: str) -> Increment:
        return Increment(ATTEMPT_ENDED, {semconv.PIPELINE_NAME: name})

    totals.add(connection, [of("first"), of("second")], 0.0, most_sets=2)
    totals.add(connection, [of("third"), of("first")], 0.0, most_sets=2)
    totals.add(connection, [of("fourth"), of("third"), Increment(ATTEMPT_DURATION, {}, 1.0)], 0.0, most_sets=2)

    counted = {
        tuple(each.attributes.items()): getattr(each, "value", 0) for each in found(connection, ATTEMPT_ENDED.name)
    }
    assert counted == {
        ((semconv.PIPELINE_NAME, "first"),): 2,
        ((semconv.PIPELINE_NAME, "second"),): 1,
        ((semconv.METRIC_OVERFLOW, "true"),): 3,
    }
    assert sum(distribution(connection, ATTEMPT_DURATION.name).counts) == 1


def test_sets_of_attributes_above_the_limit_are_one_warning(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Each further one would be the same warning.
    """
    metric = replace(ATTEMPT_ENDED, name="dkist.core.test.overflow")
    of = [Increment(metric, {semconv.PIPELINE_NAME: name}) for name in ("first", "second", "third")]

    for each in of:
        totals.add(connection, [each], 0.0, most_sets=1)

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the metric dkist.core.test.overflow has as many sets of attributes as it may have, 1: ")
    assert "otel.metric.overflow" in line


def test_a_histogram_with_other_bounds_begins_again(connection: Connection) -> None:
    """
    A release with other buckets cannot continue those of an earlier one: it states a new beginning.
    """
    totals.add(connection, [Increment(ATTEMPT_DURATION, {}, 1.0)], 5.0)
    connection.execute(update(TOTALS).values(value=b'{"bounds":[1.0],"counts":[3,4],"total":9.0,"exemplars":{}}'))
    totals.add(connection, [Increment(ATTEMPT_DURATION, {}, 1.0)], 8.0)

    measured = distribution(connection, ATTEMPT_DURATION.name)
    assert (sum(measured.counts), measured.total, measured.began_at) == (1, 1.0, 8.0)
