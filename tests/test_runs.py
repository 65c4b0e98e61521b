"""The state of runs that follows from the reports of several observers."""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    Reporter,
    Resources,
    TaskDispatched,
    TaskEnd,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.runs import AttemptView, RunState, RunView, State, TaskView, kept_reports
from tests.facts import NOON, failed, finished, make, progressed, sampled, started
from tests.strategies import examples, reports

LAUNCHER: dict[str, Any] = {"reported_by": Reporter.LAUNCHER}
ENGINE: dict[str, Any] = {"reported_by": Reporter.ENGINE, "provisional": True}
TASK: dict[str, Any] = {"reported_by": Reporter.TASK}
WITHOUT_NUMBER: dict[str, Any] = {**ENGINE, "attempt": None, "cause": Cause.LOST}


def at(minute: float) -> datetime:
    """Return a time after noon."""
    return NOON + timedelta(minutes=minute)


def run_of(*reports_heard: Event) -> RunView:
    """Return the state of the one run in the reports."""
    (run,) = RunState(reports_heard).runs
    return run


def task_of(*reports_heard: Event, name: str = "A") -> TaskView:
    """Return one task of the one run in the reports."""
    return next(task for task in run_of(*reports_heard).tasks if task.name == name)


def attempt_of(*reports_heard: Event) -> AttemptView:
    """Return the last attempt of task A."""
    return task_of(*reports_heard).attempts[-1]


def end_of(*reports_heard: Event) -> TaskFailed:
    """Return the failure that ended the last attempt of task A."""
    end = attempt_of(*reports_heard).end
    assert isinstance(end, TaskFailed)
    return end


# Properties


@examples(4)
@given(heard=reports(), seed=st.integers(0, 2**32))
def test_neither_order_nor_repetition_matters(heard: list[Event], seed: int) -> None:
    """The views depend on the set of reports, and not on their order or repetition."""
    shuffled = [*heard, *heard]
    random.Random(seed).shuffle(shuffled)

    assert RunState(heard).runs == RunState(shuffled).runs


@given(heard=reports(), seed=st.integers(0, 2**32))
def test_looking_in_between_changes_nothing(heard: list[Event], seed: int) -> None:
    """A view that was built earlier is rebuilt after new reports."""
    chance = random.Random(seed)
    state = RunState()
    for report in heard:
        state.fold(report)
        if chance.random() < 0.5:
            assert isinstance(state.runs, tuple)

    assert RunState(heard).runs == state.runs


@examples(4)
@given(reports())
def test_an_attempt_has_one_outcome(heard: list[Event]) -> None:
    """Every attempt of a task is listed once, with at most one end and with the reports that contradict it."""
    for run in RunState(heard).runs:
        for task in run.tasks:
            numbers = [attempt.number for attempt in task.attempts]
            assert len(numbers) == len(set(numbers))
            assert numbers == sorted(numbers, key=lambda number: number or 0)
            for attempt in task.attempts:
                assert_outcome(attempt, heard)


def assert_outcome(attempt: AttemptView, heard: list[Event]) -> None:
    """Check the outcome of one attempt against the reports."""
    if attempt.end is not None:
        assert attempt.state.is_end
        assert attempt.end.time == attempt.ended_at
    assert all(type(each) is not type(attempt.end) for each in attempt.contradictions)
    assert all(each in heard for each in attempt.contradictions)
    assert (attempt.cause is not None) == (attempt.state is State.FAILED)


@examples(4)
@given(reports())
def test_the_engine_never_overrules_who_stood_near(heard: list[Event]) -> None:
    """If a task or a launcher is sure of the outcome, the outcome is one of theirs."""
    state = RunState(heard)
    for run in state.runs:
        for task in run.tasks:
            for attempt in task.attempts:
                sure = [
                    type(report)
                    for report in heard
                    if isinstance(report, TaskEnd)
                    and (report.run_id, report.task_name, report.attempt) == (run.run.run_id, task.name, attempt.number)
                    and report.reported_by in (Reporter.TASK, Reporter.LAUNCHER)
                    and not report.provisional
                ]
                kept = [each for each in sure if attempt.end is not None and type(attempt.end) is each]

                assert bool(kept) == bool(sure)


def test_a_report_that_comes_by_a_subscription_says_no_more_than_itself() -> None:
    """
    The acknowledgement that is kept in addition to its fields is not a fact of the report.
    """
    state = RunState([finished("A")])

    assert not state.fold(finished("A").with_acknowledgement(lambda: None))


def test_of_two_reports_of_one_fact_the_one_that_says_more_is_kept() -> None:
    """
    The engine first reports a failure, and later whether it is final. The order of arrival does not matter.
    """
    vague, exact = failed("A", final=None), failed("A", final=True)

    for heard in ((vague, exact), (exact, vague)):
        assert end_of(*heard).final is True


@given(reports())
def test_folding_says_whether_anything_is_new(heard: list[Event]) -> None:
    """A repeated report changes nothing, so a display need not be drawn again."""
    state = RunState(heard)

    assert not any(state.fold(report) for report in heard)


# The life of an attempt


def test_an_attempt_goes_through_its_states() -> None:
    """The states follow the reports: dispatched by the engine, started, running, ended."""
    steps = [
        make(TaskDispatched, "A", time=at(0), queue="default"),
        started("A", time=at(1), **LAUNCHER),
        finished("A", time=at(3), duration_seconds=110.0),
    ]

    states = [attempt_of(*steps[: count + 1]).state for count in range(3)]
    attempt = attempt_of(*steps)

    assert states == [State.DISPATCHED, State.RUNNING, State.FINISHED]
    assert (attempt.dispatched_at, attempt.started_at, attempt.ended_at) == (at(0), at(1), at(3))
    assert attempt.duration_seconds == 110.0
    assert attempt.reporters == (Reporter.LAUNCHER, Reporter.TASK)


def test_an_attempt_that_makes_progress_is_running() -> None:
    """Its start may arrive late, or stay on its host."""
    assert attempt_of(make(TaskDispatched, "A"), progressed("A", 0)).state is State.RUNNING


def test_a_duration_that_nobody_measured_is_taken_from_the_clock() -> None:
    """The duration is unknown while the attempt runs. If clocks disagree, it is zero and not negative."""
    running = started("A", time=at(1))

    assert attempt_of(running).duration_seconds is None
    assert attempt_of(running, finished("A", time=at(3))).duration_seconds == 120.0
    assert attempt_of(running, finished("A", time=at(0))).duration_seconds == 0.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([TASK, LAUNCHER, ENGINE]),
            st.sampled_from(["exception", "exit_code", "lost"]),
            st.none() | st.floats(0.0, 1000.0),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**32),
)
def test_the_launcher_s_duration_wins(ends: list[tuple[dict[str, Any], str, float | None]], seed: int) -> None:
    """In any order and number of the reports, even if another reporter knows the cause better."""
    heard = [failed("A", cause=cause, duration_seconds=seconds, **who) for who, cause, seconds in ends]
    of_launcher: set[float | None] = {each for who, _, each in ends if who is LAUNCHER and each is not None}
    of_task: set[float | None] = {each for who, _, each in ends if who is TASK and each is not None}

    found = end_of(*heard).duration_seconds
    shuffled = [*heard, *heard]
    random.Random(seed).shuffle(shuffled)

    assert found in (of_launcher or of_task or {seconds for _, _, seconds in ends})
    assert end_of(*shuffled).duration_seconds == found


def test_the_preparation_of_the_environment_is_no_part_of_the_duration() -> None:
    """It is known from the start event, and stands beside the duration."""
    attempt = attempt_of(
        started("A", time=at(1), environment="built", environment_seconds=90.0, **LAUNCHER),
        finished("A", time=at(3), duration_seconds=7.0),
    )

    assert (attempt.duration_seconds, attempt.preparation_seconds) == (7.0, 90.0)


def test_two_reports_of_one_start_are_one() -> None:
    """The earlier time is the start."""
    assert attempt_of(started("A", time=at(2)), started("A", time=at(1), **LAUNCHER)).started_at == at(1)


# One outcome


def test_a_failure_that_the_engine_wrongly_reports_does_not_stand() -> None:
    """The launcher has seen the process succeed. The report of the engine is listed as a contradiction."""
    wrong = failed("A", **ENGINE, time=at(1))

    attempt = attempt_of(wrong, finished("A", **LAUNCHER, time=at(2)))

    assert attempt.state is State.FINISHED
    assert attempt.contradictions == (wrong,)
    assert attempt.end is not None
    assert not attempt.end.provisional


def test_the_engine_is_believed_as_long_as_nobody_else_speaks() -> None:
    """A provisional end is an end."""
    attempt = attempt_of(started("A"), failed("A", **ENGINE, cause=Cause.LOST))

    assert (attempt.state, attempt.cause, attempt.contradictions) == (State.FAILED, "lost", ())
    assert attempt.end is not None
    assert attempt.end.provisional


def test_an_engine_that_is_sure_does_not_outrank_a_task() -> None:
    """The report of a task or a launcher has priority, even if the engine's report is not provisional."""
    skipped = make(TaskSkipped, "A", reported_by=Reporter.ENGINE)

    attempt = attempt_of(skipped, finished("A"))

    assert attempt.state is State.FINISHED
    assert attempt.contradictions == (skipped,)


def test_of_two_sure_reports_that_contradict_each_other_the_failure_stands() -> None:
    """A failure must not be hidden. The success is listed as a contradiction."""
    success = finished("A")

    attempt = attempt_of(success, failed("A", **LAUNCHER, cause=Cause.SIGNAL, signal="SIGKILL"))

    assert attempt.state is State.FAILED
    assert attempt.contradictions == (success,)


def test_reports_that_agree_are_merged() -> None:
    """The task knows the exception, and the launcher the resources of the process. The outcome has both."""
    of_task = failed("A", time=at(3), message="no good", stack="…", phase="run", cpu_seconds=1.0)
    of_launcher = failed("A", time=at(4), **LAUNCHER, cause=Cause.EXIT_CODE, exit_code=1, peak_memory_bytes=7)

    end = end_of(of_task, of_launcher)

    assert (end.cause, end.message, end.phase) == (Cause.EXCEPTION, "no good", "run")
    assert (end.exit_code, end.peak_memory_bytes, end.cpu_seconds) == (1, 7, 1.0)
    assert end.time == at(3)
    assert end.id == of_task.id


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        (["signal", "terminated"], "terminated"),
        (["terminated", "signal"], "terminated"),
        (["exit_code", "exception"], "exception"),
        (["lost", "signal"], "signal"),
        (["signal", "out_of_memory"], "out_of_memory"),
        (["cosmic_ray", "lost"], "lost"),
    ],
)
def test_of_causes_that_are_equally_sure_the_more_specific_wins(causes: list[str], expected: str) -> None:
    """Task and launcher may report different causes for the same end."""
    of_task, of_launcher = causes

    assert end_of(failed("A", cause=of_task), failed("A", **LAUNCHER, cause=of_launcher)).cause == expected


def test_a_timeout_refines_what_the_launcher_saw() -> None:
    """Only the engine knows that its time limit ended the task. The other facts are those of the launcher."""
    of_launcher = failed(
        "A", time=at(2), **LAUNCHER, cause=Cause.TERMINATED, signal="SIGTERM", final=False, message="SIGTERM"
    )
    of_engine = failed("A", time=at(1), **ENGINE, cause=Cause.TIMEOUT, final=True, message="Timeout", log_url="//log")

    end = end_of(of_launcher, of_engine)

    assert end.cause is Cause.TIMEOUT
    assert (end.signal, end.message, end.final) == ("SIGTERM", "SIGTERM", False)
    assert (end.time, end.reported_by, end.provisional) == (at(2), Reporter.LAUNCHER, False)
    assert end.log_url == "//log"
    assert attempt_of(of_launcher, of_engine).cause == "timeout"


@pytest.mark.parametrize("cause", [Cause.EXCEPTION, Cause.CONFIGURATION, Cause.ENVIRONMENT, Cause.OUT_OF_MEMORY])
def test_the_engine_does_not_refine_what_it_cannot_know(cause: Cause) -> None:
    """The cause that the launcher saw is not replaced by a cause that the engine can only guess."""
    of_launcher = failed("A", **LAUNCHER, cause=Cause.SIGNAL, signal="SIGKILL")

    assert end_of(of_launcher, failed("A", **ENGINE, cause=cause)).cause is Cause.SIGNAL


def test_an_exception_stays_the_cause_of_a_timeout_that_followed() -> None:
    """A task that had already failed by itself does not get the cause `timeout`."""
    assert end_of(failed("A"), failed("A", **ENGINE, cause=Cause.TIMEOUT)).cause is Cause.EXCEPTION


# Failures without a number


def test_a_failure_without_a_number_ends_the_last_attempt() -> None:
    """The end of the run states which tasks failed, without their attempts."""
    first = failed("A", attempt=1, time=at(1), cause=Cause.EXCEPTION)
    second = started("A", attempt=2, time=at(2))

    task = task_of(first, second, failed("A", **WITHOUT_NUMBER, time=at(9)))

    assert [(each.number, each.state, each.cause) for each in task.attempts] == [
        (1, State.FAILED, "exception"),
        (2, State.FAILED, "lost"),
    ]
    assert task.attempts[-1].end is not None
    assert task.attempts[-1].ended_at == at(9)


@pytest.mark.parametrize("end", [finished("A", **LAUNCHER, time=at(2)), failed("A", time=at(2))])
def test_a_failure_without_a_number_is_dropped_where_the_last_attempt_has_ended(end: TaskEnd) -> None:
    """The report of the last attempt's end has all facts."""
    alone = attempt_of(started("A", time=at(1)), end)

    assert alone == attempt_of(started("A", time=at(1)), end, failed("A", **WITHOUT_NUMBER, time=at(9)))


def test_a_failure_without_a_number_does_not_end_an_attempt_that_came_later() -> None:
    """After a clear, the next attempt runs, even if the report about the one before arrives late."""
    late = failed("A", **WITHOUT_NUMBER, time=at(5))

    task = task_of(started("A", attempt=1, time=at(1)), late, started("A", attempt=2, time=at(7)))

    assert [each.state for each in task.attempts] == [State.FAILED, State.RUNNING]


def test_a_failure_without_a_number_stands_alone_where_no_attempt_was_heard_of() -> None:
    """A worker that could not load the workflow publishes no other report."""
    task = task_of(failed("A", **WITHOUT_NUMBER))

    assert [(each.number, each.state, each.cause) for each in task.attempts] == [(None, State.FAILED, "lost")]
    assert task.state is State.FAILED


# The end of a run


def test_the_end_of_a_run_closes_what_is_still_open() -> None:
    """An attempt without an end gets the end that the engine states, at the time of the run's end."""
    states = {"A": "failed", "B": "success", "C": "upstream_failed", "D": "skipped", "E": "no_status"}
    heard = [started("A", time=at(1)), started("B", time=at(1)), make(TaskDispatched, "E", time=at(1))]
    end = make(WorkflowFailed, reported_by=Reporter.ENGINE, ended_at=at(9), tasks=states)

    run = run_of(*heard, end)

    assert {task.name: task.state for task in run.tasks} == {
        "A": State.FAILED,
        "B": State.FINISHED,
        "C": State.NOT_RUN,
        "D": State.SKIPPED,
        "E": State.DISPATCHED,
    }
    lost = task_of(*heard, end).attempts[-1]
    assert (lost.cause, lost.ended_at, lost.end) == ("lost", at(9), None)
    assert {task.name: task.engine_state for task in run.tasks} == states


def test_the_end_of_a_run_changes_no_end_of_an_attempt() -> None:
    """The end that the launcher saw stays. The state in the engine is a separate field."""
    end = make(WorkflowFailed, ended_at=at(9), tasks={"A": "failed"})

    task = task_of(finished("A", **LAUNCHER, time=at(2)), end)

    assert (task.state, task.engine_state) == (State.FINISHED, "failed")
    assert task.attempts[-1].contradictions == ()


def test_the_engines_verdict_is_shown_as_what_it_is() -> None:
    """A run whose tasks all finished may be marked as failed, by hand or by a time limit."""
    start = make(WorkflowStarted, started_at=at(0))

    run = run_of(start, finished("A", time=at(1)), make(WorkflowFailed, ended_at=at(2), tasks={"A": "success"}))

    assert (run.state, run.verdict, run.ended_at) == (State.FAILED, State.FAILED, at(2))
    assert run_of(start).verdict is None


@pytest.mark.parametrize("run_id", ["manual__2026-11-22T12:00:00+00:00", "local__1__20261122T120000Z__0a1b2c3d"])
def test_a_run_of_an_engine_runs_until_the_engine_ends_it(run_id: str) -> None:
    """Between two tasks no task runs, and the run is not over. A consumer may have missed the start of the run."""
    assert run_of(finished("A", run_id=run_id)).state is State.RUNNING


# Cleared runs


def test_a_cleared_run_runs_again() -> None:
    """Its new start replaces the previous end, including the states of tasks in the engine."""
    heard = [
        make(WorkflowStarted, started_at=at(0)),
        started("A", time=at(1)),
        make(WorkflowFailed, ended_at=at(5), tasks={"A": "failed", "B": "upstream_failed"}),
        make(WorkflowStarted, started_at=at(10)),
    ]

    run = run_of(*heard)

    assert (run.state, run.verdict, run.started_at, run.ended_at) == (State.RUNNING, None, at(0), None)
    assert [(task.name, task.state, task.engine_state) for task in run.tasks] == [
        ("A", State.FAILED, None),
        ("B", State.WAITING, None),
    ]


def test_a_run_that_was_cleared_below_its_roots_runs_again_too() -> None:
    """No root task runs again, so no start is reported. The new attempt reopens the run."""
    heard = [
        make(WorkflowStarted, started_at=at(0)),
        failed("A", time=at(2)),
        make(WorkflowFailed, ended_at=at(5), tasks={"A": "failed"}),
        make(TaskDispatched, "A", attempt=2, time=at(10)),
    ]

    run = run_of(*heard)
    after = run_of(*heard, finished("A", attempt=2, time=at(11)))

    assert (run.state, run.verdict) == (State.RUNNING, None)
    assert [attempt.state for attempt in run.tasks[0].attempts] == [State.FAILED, State.DISPATCHED]
    assert after.state is State.RUNNING


def test_a_cleared_run_ends_again() -> None:
    """The last end counts."""
    heard = [
        failed("A", time=at(2)),
        make(WorkflowFailed, ended_at=at(5), tasks={"A": "failed"}),
        started("A", attempt=2, time=at(10)),
        finished("A", attempt=2, time=at(11)),
        make(WorkflowFinished, ended_at=at(12), tasks={"A": "success"}),
    ]

    run = run_of(*heard)

    assert (run.state, run.verdict, run.ended_at) == (State.FINISHED, State.FINISHED, at(12))


def test_a_clock_that_is_ahead_does_not_reopen_a_run() -> None:
    """If an attempt starts after the end by its clock, and has the outcome that the end states, the run stays ended."""
    heard = [
        started("A", time=at(6)),
        finished("A", time=at(7)),
        make(WorkflowFinished, ended_at=at(5), tasks={"A": "success"}),
    ]

    assert run_of(*heard).state is State.FINISHED


def test_an_attempt_is_closed_by_the_one_that_follows() -> None:
    """A task never runs twice at the same time: a new attempt starts only after the end of the previous one."""
    task = task_of(started("A", attempt=1, time=at(1)), make(TaskDispatched, "A", attempt=2, time=at(4)))

    first = task.attempts[0]
    assert (first.state, first.cause, first.ended_at, first.end) == (State.FAILED, "lost", at(4), None)
    assert task.state is State.DISPATCHED


# Runs by hand


def test_a_run_by_hand_is_over_as_soon_as_nothing_runs() -> None:
    """No engine reports its end. The next call continues the run."""
    first = [started("A", run_id="hand__1", time=at(1)), finished("A", run_id="hand__1", time=at(2))]
    second = started("B", run_id="hand__1", time=at(3))
    lost = failed("B", run_id="hand__1", time=at(4))

    states = [run_of(*heard).state for heard in ([first[0]], first, [*first, second], [*first, second, lost])]

    assert states == [State.RUNNING, State.FINISHED, State.RUNNING, State.FAILED]
    assert run_of(*first).started_at == at(1)
    assert run_of(*first).verdict is None


# Runs and tasks


def test_tasks_stand_in_dependency_order() -> None:
    """
    The order is that of the graph, even before the tasks start. Without a graph, it is the order of their reports.
    """
    graph = Graph(nodes=("B", "A"), edges=(("B", "A"),))
    heard = [started("A", time=at(1)), started("C", time=at(2)), started("B", time=at(3))]

    assert [task.name for task in run_of(make(WorkflowStarted, graph=graph), *heard).tasks] == ["B", "A", "C"]
    assert [task.name for task in run_of(*heard).tasks] == ["A", "C", "B"]
    assert task_of(make(WorkflowStarted, graph=graph)).state is State.WAITING


def test_runs_stand_in_the_order_of_their_starts() -> None:
    """A run is found by its id."""
    state = RunState([make(WorkflowStarted, run_id=name, time=at(minute)) for name, minute in (("r2", 2), ("r1", 1))])

    assert [run.run.run_id for run in state.runs] == ["r1", "r2"]
    assert state.run("r2") == state.runs[1]
    assert state.run("r3") is None


def test_a_run_id_that_two_workflows_share_makes_two_runs() -> None:
    """An engine names runs by their time, so workflows that start at the same time have runs with one id."""
    state = RunState([started("A"), started("A", workflow_name="V"), started("A", workflow_version="2")])

    assert [(run.run.workflow_name, run.run.workflow_version) for run in state.runs] == [
        ("V", "1"),
        ("W", "1"),
        ("W", "2"),
    ]


# Alarms


def overdue(sequence: int, exceeded: str = "silence", **facts: Any) -> TaskOverdue:
    """Return an alarm about the first attempt of task A."""
    alarm: dict[str, Any] = {"reported_by": "watcher", "sequence": sequence, "limit_seconds": 60.0}
    return make(TaskOverdue, "A", **alarm | {"exceeded": exceeded} | facts)


def run_overdue(sequence: int, **facts: Any) -> WorkflowOverdue:
    """Return an alarm about a run without an attempt."""
    alarm: dict[str, Any] = {"reported_by": "watcher", "sequence": sequence, "limit_seconds": 60.0}
    return make(WorkflowOverdue, **alarm | facts)


@given(heard=reports(), seed=st.integers(0, 2**32))
def test_alarms_change_nothing_but_the_alarms(heard: list[Event], seed: int) -> None:
    """They are no signs of life: states, times and reporters are those without them."""
    random.Random(seed).shuffle(heard)
    others = [event for event in heard if not isinstance(event, TaskOverdue | WorkflowOverdue)]
    known = {event.run_id for event in others}

    views = [view for view in RunState(heard).runs if view.run.run_id in known]

    without = [
        replace(
            view,
            overdue=None,
            tasks=tuple(
                replace(task, attempts=tuple(replace(each, overdue=None) for each in task.attempts))
                for task in view.tasks
            ),
        )
        for view in views
    ]
    assert without == list(RunState(others).runs)


@given(heard=reports())
def test_an_alarm_that_stands_is_the_latest_of_its_kind_about_what_goes_on(heard: list[Event]) -> None:
    """It is withdrawn by a later alarm of the same kind alone, and no ended attempt or run has one."""
    for view in RunState(heard).runs:
        for task in view.tasks:
            for attempt in task.attempts:
                about = [
                    event
                    for event in heard
                    if isinstance(event, TaskOverdue)
                    and (event.run_id, event.task_name, event.attempt) == (view.run.run_id, task.name, attempt.number)
                ]
                latest = {
                    kind: max(event.sequence for event in about if event.exceeded == kind)
                    for kind in {event.exceeded for event in about}
                }
                if attempt.overdue is not None:
                    assert not attempt.state.is_end
                    assert attempt.overdue.sequence == latest[attempt.overdue.exceeded]
                elif not attempt.state.is_end:
                    assert all(
                        any(e.withdrawn and (e.exceeded, e.sequence) == (kind, number) for e in about)
                        for kind, number in latest.items()
                    )
        assert view.overdue is None or not view.state.is_end


def test_of_many_alarms_the_latest_of_each_kind_is_kept() -> None:
    """A run that is watched for long does not fill the store."""
    alarms = [make_alarm(number) for number in range(9) for make_alarm in (overdue, run_overdue)]
    too_long = overdue(0, "duration")

    assert kept_reports([*alarms, too_long]) == [overdue(8), run_overdue(8), too_long]


def test_a_task_that_is_overdue_goes_on() -> None:
    """A report that a task is overdue does not end it, and an end removes the alarm."""
    assert attempt_of(started("A"), overdue(0)).state is State.RUNNING
    assert attempt_of(started("A"), overdue(0)).overdue == overdue(0)
    assert attempt_of(started("A"), overdue(0), finished("A")).overdue is None


def test_an_alarm_is_withdrawn_and_a_later_one_stands_again() -> None:
    """Each later alarm has a higher number, and an alarm about the duration has that of the start."""
    silent, withdrawn, later = overdue(20), overdue(21, withdrawn=True), overdue(40)
    too_long = overdue(8, "duration")

    assert attempt_of(started("A"), withdrawn, silent).overdue is None
    assert attempt_of(started("A"), later, withdrawn, silent).overdue == later
    assert attempt_of(started("A"), withdrawn, too_long, silent).overdue == too_long
    assert attempt_of(started("A"), too_long, overdue(9, "duration", withdrawn=True)).overdue is None


def test_an_alarm_about_an_unknown_attempt_makes_none() -> None:
    """A run of which only alarms are known goes on, without tasks."""
    (view,) = RunState([overdue(0), run_overdue(0)]).runs

    assert (view.state, view.tasks, view.overdue, view.is_start_known) == (State.RUNNING, (), run_overdue(0), False)
    (known,) = RunState([started("A"), overdue(0, attempt=2)]).runs
    assert [(attempt.number, attempt.overdue) for attempt in known.tasks[0].attempts] == [(1, None)]


def test_a_run_is_overdue_until_it_ends() -> None:
    """The end of a run, or a later report of the watcher, removes the alarm."""
    begin, end = make(WorkflowStarted, started_at=NOON), make(WorkflowFinished, ended_at=NOON, tasks={})

    assert RunState([begin, run_overdue(4)]).runs[0].overdue == run_overdue(4)
    assert RunState([run_overdue(5, withdrawn=True), begin, run_overdue(4)]).runs[0].overdue is None
    assert RunState([begin, run_overdue(4), end]).runs[0].overdue is None


def test_a_run_that_has_not_started_is_no_run() -> None:
    """The alarm about it has no run id, and states nothing about another run."""
    state = RunState()

    assert state.fold(make(WorkflowOverdue, run_id="", expected_at=NOON, grace_seconds=60.0)) is False
    assert state.runs == ()


def test_a_firm_report_counts_before_a_provisional_one_of_the_same_reporter() -> None:
    """Otherwise an engine's firm report would outrank both."""
    firm, provisional = failed("A", provisional=False), failed("A", provisional=True)

    assert kept_reports([provisional, firm]) == kept_reports([firm, provisional]) == [firm]


# Progress


def test_progress_is_the_latest() -> None:
    """The latest report is the one with the highest sequence, in any order of arrival."""
    late, early = progressed("A", 7), progressed("A", 3)

    state = RunState([late])
    is_news = state.fold(early)

    assert not is_news
    assert attempt_of(late, early).progress == late


def test_a_long_task_does_not_fill_the_memory() -> None:
    """Of 100,000 progress reports, one is kept."""
    state = RunState()
    for sequence in range(100_000):
        state.fold(progressed("A", sequence))

    (reports_kept,) = state._runs.values()
    (run,) = state.runs
    progress = run.tasks[0].attempts[0].progress

    assert len(reports_kept.kept) == 1
    assert isinstance(progress, TaskProgressed)
    assert progress.sequence == 99_999
    assert sys.getsizeof(reports_kept.kept) < 1000


# Samples


def test_the_sample_is_the_latest() -> None:
    """The latest is the one with the highest sequence, in any order of arrival."""
    late, early = sampled("A", 7, host="node7"), sampled("A", 3)

    state = RunState([late])
    is_news = state.fold(early)

    assert not is_news
    assert attempt_of(early, late).sample == late


def test_a_sample_alone_shows_that_an_attempt_runs() -> None:
    """The report of the start may come later, or not at all."""
    attempt = attempt_of(make(TaskDispatched, "A", time=at(0)), sampled("A", 0, time=at(1)))

    assert (attempt.state, attempt.started_at) == (State.RUNNING, None)
    assert attempt_of(sampled("A", 0)).state is State.RUNNING


@pytest.mark.parametrize("end", [finished("A", time=at(2)), failed("A", time=at(2))])
def test_a_late_sample_changes_nothing_of_an_ended_attempt(end: TaskEnd) -> None:
    """It is kept, whatever its time is."""
    before, late = attempt_of(started("A"), end), sampled("A", 3, time=at(5))

    after = attempt_of(started("A"), end, late)

    assert after.sample == late
    assert replace(after, sample=None, reporters=before.reporters) == before


def test_a_late_sample_does_not_reopen_a_run() -> None:
    """Neither one that the engine has ended nor one by hand."""
    end = make(WorkflowFinished, time=at(3), ended_at=at(3), tasks={"A": "success"})
    run = run_of(finished("A", time=at(2)), end, sampled("A", 1, time=at(9)))
    by_hand = run_of(finished("A", run_id="hand__1", time=at(2)), sampled("A", 1, run_id="hand__1", time=at(9)))

    assert (run.state, run.ended_at) == (State.FINISHED, at(3))
    assert by_hand.state is State.FINISHED


def test_what_a_start_promises_is_part_of_the_attempt() -> None:
    """A watcher knows when the next sign of life is due."""
    attempt = attempt_of(started("A", sample_seconds=30, overdue_after_seconds=600))

    assert (attempt.sample_seconds, attempt.overdue_after_seconds) == (30.0, 600.0)


@pytest.mark.parametrize("kept", [progressed, sampled])
def test_of_many_signs_of_life_one_is_kept(kept: Callable[[str, int], Event]) -> None:
    """A task that runs for weeks takes no more memory than a short one."""
    state = RunState([started("A")])
    for sequence in range(1000):
        state.fold(kept("A", sequence))

    (reports_kept,) = state._runs.values()
    assert len(reports_kept.kept) == 2


def test_resources_and_profile_are_those_of_the_better_informed_report() -> None:
    """As whole values: the totals of two reporters do not add up."""
    of_task = {"resources": Resources(cpu_user_seconds=2.0, rchar=7), "profile": ((1.0, 5, 1.0, 0.0, 0.0),)}
    of_launcher = {"resources": Resources(cpu_user_seconds=3.0), "profile": ((1.0, 6, 1.0, 0.0, 0.0),)}
    both = [finished("A", **of_task), finished("A", **LAUNCHER, **of_launcher)]
    by_one = [failed("A", **of_task), failed("A", **LAUNCHER, cause="exit_code", exit_code=1)]

    merged, of_failure = attempt_of(*both).end, attempt_of(*by_one).end

    assert merged is not None
    assert of_failure is not None
    assert {"resources": merged.resources, "profile": merged.profile} == of_launcher
    assert {"resources": of_failure.resources, "profile": of_failure.profile} == of_task


def test_every_event_has_a_part_in_the_fold() -> None:
    """Each class of events leads to a named state."""
    heard = [
        make(WorkflowStarted),
        make(TaskDispatched, "A"),
        make(TaskStarted, "A"),
        make(TaskFinished, "A"),
        make(TaskSkipped, "B", reported_by=Reporter.ENGINE),
    ]

    run = run_of(*heard)

    assert {task.name: task.state for task in run.tasks} == {"A": State.FINISHED, "B": State.SKIPPED}
    assert State.SKIPPED.is_end
    assert not State.WAITING.is_end


@pytest.mark.quiet
def test_a_view_takes_time_in_proportion_to_the_tasks() -> None:
    """
    For eight times the tasks, the time is far less than 64 times, which a search through all reports for each task
    would take.
    """

    def seconds(count: int) -> float:
        state = RunState(
            report for number in range(count) for report in (started(f"T{number}"), finished(f"T{number}"))
        )
        began = time.process_time()
        assert len(state.runs[0].tasks) == count
        return time.process_time() - began

    assert min(seconds(2000) for _ in range(3)) < 24 * min(seconds(250) for _ in range(3))
