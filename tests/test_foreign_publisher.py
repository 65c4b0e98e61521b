"""
The influence of any publisher on `RunState`, and its limits: absurd times decide nothing.
"""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.cli.runs.find import find_run
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.consumer.backwards import Batch
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import (
    Event,
    Graph,
    Reporter,
    TaskDispatched,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.runs import RunState, RunView, State
from dkist_processing_core.runs.as_json import run_json
from tests.facts import NOON, failed, finished, make, progressed, started
from tests.strategies import examples, reports

FAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
LONG_AGO = datetime.fromtimestamp(0, UTC)
ABSURD = [pytest.param(FAR, id="9999"), pytest.param(LONG_AGO, id="1970")]
ENGINE: dict[str, Any] = {"reported_by": Reporter.ENGINE}


def at(minute: float) -> datetime:
    """
    Return a time after noon.
    """
    return NOON + timedelta(minutes=minute)


def received(*events: Event, minute: float = 60) -> list[Event]:
    """
    Return events as a subscription yields them.
    """
    return [event.with_acknowledgement(lambda: None, at(minute)) for event in events]


def run_of(*events: Event, **options: float) -> RunView:
    """
    Return the one run of events received an hour after noon.
    """
    (run,) = RunState(received(*events, **options)).runs
    return run


def complete() -> list[Event]:
    """
    Return the reports on a run that is over.
    """
    return [
        make(WorkflowStarted, time=at(0), started_at=at(0), graph=Graph(nodes=("A",), edges=()), **ENGINE),
        make(TaskDispatched, "A", time=at(1), **ENGINE),
        started("A", time=at(2)),
        finished("A", time=at(3)),
        make(WorkflowFinished, time=at(4), ended_at=at(4), tasks={"A": "success"}, **ENGINE),
    ]


@pytest.mark.parametrize("moment", ABSURD)
def test_an_absurd_time_does_not_change_the_state_of_a_run(moment: datetime) -> None:
    """
    A start, an end or an attempt with such a time neither makes a finished run go on nor changes its duration.
    """
    honest = run_of(*complete())
    for foreign in (
        make(WorkflowStarted, time=at(5), started_at=moment, **ENGINE),
        make(WorkflowStarted, time=moment, **ENGINE),
        make(WorkflowFailed, time=moment, ended_at=moment, tasks={"A": "failed"}, **ENGINE),
        make(TaskDispatched, "A", time=moment, reported_by=Reporter.LAUNCHER),
        started("A", time=moment, reported_by=Reporter.LAUNCHER),
        progressed("A", 0, time=moment),
    ):
        run = run_of(*complete(), foreign)

        assert (run.state, run.verdict) == (State.FINISHED, State.FINISHED)
        assert (run.ended_at, run.tasks[0].attempts[0].ended_at) == (at(4), at(3))
        assert run.tasks[0].attempts[0].duration_seconds == honest.tasks[0].attempts[0].duration_seconds
        assert run.started_at == at(0)
        assert run.implausible == (foreign,)
    assert honest.implausible == ()


@pytest.mark.parametrize("moment", ABSURD)
def test_an_end_at_an_absurd_time_is_an_end_without_a_time(moment: datetime) -> None:
    """
    A host whose clock has stopped reports correct facts with a wrong time.
    """
    run = run_of(started("A", time=moment), finished("A", time=moment), *complete()[:1])
    attempt = run.tasks[0].attempts[0]

    assert (attempt.state, attempt.started_at, attempt.ended_at) == (State.FINISHED, None, None)
    assert attempt.duration_seconds is None
    assert len(run.implausible) == 2


@pytest.mark.parametrize("moment", ABSURD)
def test_a_run_of_an_absurd_time_is_not_the_latest(moment: datetime) -> None:
    """
    It is listed before all others, and the timeline shows the run that began last.
    """
    honest = [started("A", run_id=f"r{number}", time=at(number)) for number in range(3)]
    foreign = [started("A", run_id=f"foreign{number}", time=moment) for number in range(30)]
    events = received(*honest[:2], *foreign, honest[2], *foreign)

    runs = RunState(events).runs
    shown = find_run(lambda _: [Batch(list(events))], None, where="here")

    assert [run.run.run_id for run in runs[-3:]] == ["r0", "r1", "r2"]
    assert {run.started_at for run in runs[:-3]} == {None}
    assert shown.run.run_id == "r2"


def test_a_report_of_an_absurd_time_does_not_make_a_run_an_old_one() -> None:
    """
    The timeline of the latest run keeps twenty, and forgets those that began first.
    """
    honest = [started("A", run_id=f"r{number:02}", time=at(number)) for number in range(40)]
    foreign = started("B", run_id="r39", time=LONG_AGO)

    shown = find_run(lambda _: [Batch(list(received(*honest, foreign)))], None, where="here")

    assert shown.run.run_id == "r39"


@pytest.mark.parametrize("hours", [-14, 14, -24 * 100])
def test_a_clock_that_is_wrong_by_a_zone_and_a_report_that_waited_long_are_plausible(hours: int) -> None:
    """
    An outbox may wait for its broker for months.
    """
    start = started("A", time=at(0) + timedelta(hours=hours))

    run = run_of(start)

    assert run.implausible == ()
    assert run.started_at == start.time


def test_without_a_time_of_receipt_every_time_is_plausible() -> None:
    """
    The fold reads no clock: it judges only by the given times.
    """
    (run,) = RunState([started("A", time=FAR)]).runs

    assert run.started_at == FAR
    assert run.implausible == ()


def test_what_was_absurd_is_plausible_when_its_time_has_come() -> None:
    """
    The last report received shows the current time.
    """
    early = started("A", time=at(60 * 24 * 7))
    state = RunState(received(early))
    before = state.runs[0].started_at
    state.fold(*received(started("B", time=early.time), minute=60 * 24 * 7))

    assert before is None
    assert state.runs[0].started_at == early.time
    assert state.runs[0].implausible == ()


@examples(2)
@given(
    heard=reports(),
    absurd=st.lists(st.sampled_from([FAR, LONG_AGO, None]), min_size=14, max_size=14),
    seed=st.integers(),
)
def test_neither_order_nor_repetition_matters_with_absurd_times_among_them(
    heard: list[Event], absurd: list[datetime | None], seed: int
) -> None:
    """
    The set of reports alone decides which times are plausible.
    """
    changed = [
        event if moment is None else structs.replace(event, time=moment)
        for event, moment in zip(heard, absurd, strict=False)
    ]
    first = [event for index, each in enumerate(changed) for event in received(each, minute=index)]
    shuffled = [*first, *first]
    random.Random(seed).shuffle(shuffled)

    assert RunState(first).runs == RunState(shuffled).runs


def test_a_measure_of_more_than_a_year_is_none() -> None:
    """
    It would push all other times off the axis of a timeline.
    """
    run = run_of(*complete()[:3], finished("A", time=at(3), duration_seconds=1e12))

    assert run.tasks[0].attempts[0].duration_seconds == 60.0


def test_an_absurd_time_is_shown_as_such() -> None:
    """
    With its reporter and its event, in the terminal and in JSON; the axis covers the plausible times.
    """
    foreign = [
        make(WorkflowStarted, time=at(5), started_at=FAR, **ENGINE),
        progressed("A", 1, time=LONG_AGO),
        make(WorkflowFailed, time=FAR, **ENGINE),
    ]
    view = run_of(*complete(), *foreign)
    several = run_of(*complete(), *(started(f"T{n}", time=FAR) for n in range(5)))

    lines = [str(line) for line in draw_timeline(view, width=160, now=at(60), zone=UTC)]
    more = [str(line) for line in draw_timeline(several, width=160, now=at(60), zone=UTC)]
    alone = [str(line) for line in draw_timeline(run_of(started("A", time=FAR)), width=160, now=at(60), zone=UTC)]

    assert "finished in 4 min 00 s" in lines[0]
    assert "  ! implausible and not drawn: the task reports task.progressed at 1970-01-01 00:00:00" in lines
    assert any("workflow.started at 9999-12-31 23:59:59 and 2026-11-22 12:05:00" in line for line in lines)
    assert "  ! and 2 more reports with implausible times" in more
    assert any("began at an implausible time" in line for line in alone)
    assert sorted(report["type"] for report in run_json(view)["implausible"]) == sorted(each.type for each in foreign)


def test_a_subscription_says_when_it_received_an_event() -> None:
    """
    By the clock of its host, in addition to the times in the event.
    """
    foreign, honest = started("A", time=FAR), started("A", run_id="r2", time=datetime.now(UTC))
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(honest, foreign)
    before = datetime.now(UTC)

    events = list(subscribe(replay=True, timeout=0.0))

    assert events == [honest, foreign]
    assert all(event.received_at is not None and before <= event.received_at <= datetime.now(UTC) for event in events)
    assert [run.run.run_id for run in RunState(events).runs] == ["r", "r2"]
    assert honest.received_at is None


# What every publisher can still do, as the documentation states


def test_a_failure_reported_of_a_finished_attempt_stands_and_the_success_is_listed() -> None:
    """
    It cannot be distinguished from the report of a launcher that saw the process die after the task's last report.
    """
    run = run_of(*complete(), failed("A", time=at(3.5), reported_by=Reporter.LAUNCHER))
    attempt = run.tasks[0].attempts[0]

    assert (attempt.state, attempt.contradictions) == (State.FAILED, (complete()[3],))
    assert (run.state, run.verdict, run.tasks[0].engine_state) == (State.FINISHED, State.FINISHED, "success")


def test_an_attempt_that_nobody_made_is_shown_beside_what_the_engine_calls_the_task() -> None:
    """
    If it claims a time before the end, it changes neither the state nor the verdict of a finished run.
    """
    run = run_of(*complete(), failed("A", attempt=7, time=at(3.5)))

    assert [attempt.number for attempt in run.tasks[0].attempts] == [1, 7]
    assert (run.state, run.tasks[0].state, run.tasks[0].engine_state) == (State.FINISHED, State.FAILED, "success")


# Clocks that are set back


@pytest.mark.parametrize("name", ["local__1__20261122T120000Z__0a1b2c3d", "scheduled__1"])
@pytest.mark.parametrize("is_received", [True, False])
def test_a_run_that_ends_before_it_began_is_over(name: str, *, is_received: bool) -> None:
    """
    A clock was set back by an hour during the run. An attempt with a lost end is closed by the run's end.
    """
    events: list[Event] = [
        make(WorkflowStarted, run_id=name, time=at(60), started_at=at(60), **ENGINE),
        started("A", run_id=name, time=at(61)),
        finished("A", run_id=name, time=at(3)),
        make(TaskDispatched, "B", run_id=name, time=at(61), **ENGINE),
        make(
            WorkflowFinished,
            run_id=name,
            time=at(5),
            ended_at=at(5),
            tasks={"A": "success", "B": "success"},
            **ENGINE,
        ),
    ]

    (run,) = RunState(received(*events, minute=120) if is_received else events).runs
    lines = [str(line) for line in draw_timeline(run, width=100, now=at(500))]

    assert (run.state, run.ended_at) == (State.FINISHED, at(5))
    assert [task.state for task in run.tasks] == [State.FINISHED, State.FINISHED]
    assert "finished in" in lines[0]


def test_a_run_that_was_cleared_after_its_clock_was_set_back_runs_again() -> None:
    """
    It has one start more than it has ends.
    """
    events = [
        make(WorkflowStarted, started_at=at(60), **ENGINE),
        make(WorkflowFailed, ended_at=at(5), tasks={"A": "failed"}, **ENGINE),
        make(WorkflowStarted, started_at=at(10), **ENGINE),
    ]

    states = [RunState(events[:count]).runs[0].state for count in (1, 2, 3)]

    assert states == [State.RUNNING, State.FAILED, State.RUNNING]
