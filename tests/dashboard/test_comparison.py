"""
The comparison of two runs: what is explained and what is not add up to the difference, whatever the runs are.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.analysis.comparison import Comparison, Difference, Side, compare
from dkist_processing_core.dashboard.drawing.change_bars import WIDTH, change_bars
from dkist_processing_core.events import Event, Graph
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import AttemptView, RunView, State, TaskView, run_view
from dkist_processing_core.testing import START, FixedClock, SampleRun
from tests.facts import NOON, finished
from tests.strategies import examples

NONE = timedelta(0)
UNTIL = NOON + timedelta(hours=1)


def side_of(events: list[Event]) -> Side:
    """Return one side of a comparison."""
    return Side(run_view(events), UNTIL)


def sample(**facts: Any) -> SampleRun:
    """Return a sample run that has started."""
    run = SampleRun(clock=FixedClock(START), **facts)
    run.start()
    return run


MINUTES = st.none() | st.integers(0, 9)
PHASES = st.sampled_from([{}, {"run": 100.0}, {"pre_run": 1.5, "run": 1e15}])


def moment(minutes: int | None) -> datetime | None:
    """Return a time after noon."""
    return None if minutes is None else NOON + timedelta(minutes=minutes)


@st.composite
def attempts(draw: st.DrawFn) -> AttemptView:
    """Return an attempt whose times may contradict each other, or be missing."""
    dispatched, begun, ended = map(moment, draw(st.tuples(MINUTES, MINUTES, MINUTES)))
    end = None if ended is None else finished("A", time=ended, phases=draw(PHASES))
    state = State.RUNNING if end is None else State.FINISHED
    return AttemptView(1, state, dispatched_at=dispatched, started_at=begun, ended_at=ended, end=end)


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Return a run with some of four tasks, and any graph of them."""
    names = draw(st.lists(st.sampled_from("ABCD"), unique=True, max_size=4))
    tasks = tuple(TaskView(name, State.FINISHED, tuple(draw(st.lists(attempts(), max_size=2)))) for name in names)
    edges = tuple(each for each in combinations(names, 2) if draw(st.booleans()))
    graph = draw(st.sampled_from([None, Graph(nodes=tuple(names), edges=edges)])) if names else None
    begun, ended = map(moment, draw(st.tuples(MINUTES, MINUTES)))
    state = State.RUNNING if ended is None else State.FINISHED
    run = Run("W", "1", "r", None)
    return Side(RunView(run, state, tasks, started_at=begun, ended_at=ended, graph=graph), UNTIL)


def changes(comparison: Comparison) -> list[tuple[str, timedelta, tuple[timedelta, ...]]]:
    """Return the changes of the tasks that explain something, by their names."""
    assert comparison.explanation is not None
    return sorted(
        (task.name, task.whole.change, tuple(part.change for part in task.parts))
        for task in comparison.explanation.tasks
    )


def swapped(difference: Difference) -> Difference:
    """Return a difference seen from the other run."""
    return Difference(difference.name, difference.b, difference.a)


@examples(2)
@given(sides(), sides())
def test_explained_and_unexplained_are_the_whole_difference(a: Side, b: Side) -> None:
    """Exactly, for runs with other tasks, other graphs, and clocks that contradict each other."""
    found = compare(a, b).explanation
    if found is None:
        return

    assert found.explained + found.outside.change == found.whole.change
    assert sum((part.change for part in found.parts), NONE) == found.explained
    for task in found.tasks:
        assert sum((part.change for part in task.parts), NONE) == task.whole.change


@examples(2)
@given(sides(), sides())
def test_the_comparison_of_swapped_runs_has_the_opposite_changes(a: Side, b: Side) -> None:
    """Neither run is special."""
    there, back = compare(a, b), compare(b, a)

    assert [(task.name, swapped(task.whole), task.b, task.a) for task in there.tasks] == [
        (task.name, task.whole, task.a, task.b) for task in back.tasks
    ]
    assert [(each.what, each.task, each.b, each.a) for each in there.contrasts] == [
        (each.what, each.task, each.a, each.b) for each in back.contrasts
    ]
    if there.explanation is None:
        assert back.explanation is None
        return
    assert changes(back) == [(name, -whole, tuple(-part for part in parts)) for name, whole, parts in changes(there)]


@given(sides(), sides())
def test_other_names_of_the_tasks_change_nothing_else(a: Side, b: Side) -> None:
    """No rule depends on a name."""
    there, renamed = compare(a, b), compare(with_other_names(a), with_other_names(b))

    assert {(f"X{task.name}", task.whole.a, task.whole.b) for task in there.tasks} == {
        (task.name, task.whole.a, task.whole.b) for task in renamed.tasks
    }
    if there.explanation is not None:
        assert [(f"X{name}", *rest) for name, *rest in changes(there)] == [(n, *rest) for n, *rest in changes(renamed)]


def with_other_names(side: Side) -> Side:
    """Return a run whose tasks have other names."""

    def other(task: TaskView) -> TaskView:
        return replace(task, name=f"X{task.name}")

    graph = side.view.graph
    if graph is not None:
        edges = tuple((f"X{first}", f"X{second}") for first, second in graph.edges)
        graph = Graph(nodes=tuple(f"X{name}" for name in graph.nodes), edges=edges)
    return replace(side, view=replace(side.view, tasks=tuple(map(other, side.view.tasks)), graph=graph))


@given(sides())
def test_a_run_does_not_differ_from_itself(side: Side) -> None:
    """Nothing has changed, and nothing is in contrast."""
    found = compare(side, side)

    assert found.contrasts == ()
    assert all(task.whole.change == NONE for task in found.tasks)


def test_the_retry_explains_what_took_longer() -> None:
    """The task that was tried twice comes first, with its earlier attempt as the largest part."""
    first, second = sample(), sample(max_attempts=2)
    for name in first.tasks:
        first.succeed(name)
        if name == "Calibrate":
            second.fail(name)
        second.succeed(name)
    first.end()
    second.end()

    found = compare(side_of(first.events), side_of(second.events))

    assert found.explanation is not None
    most = found.explanation.tasks[0]
    assert most.name == "Calibrate"
    assert max(most.parts, key=lambda part: part.change).name == "earlier attempts"
    assert most.whole.change == found.explanation.whole.change > NONE
    assert ("attempts", "Calibrate", "1", "2") in [(each.what, each.task, each.a, each.b) for each in found.contrasts]


def test_what_only_one_workflow_has_is_named() -> None:
    """A task without a counterpart explains as much as it took."""
    first, second = sample(tasks=("A", "B")), sample(tasks=("A", "B", "C"), workflow_version="3")
    for run in (first, second):
        for name in run.tasks:
            run.succeed(name)
        run.end()

    found = compare(side_of(first.events), side_of(second.events))

    assert found.explanation is not None
    assert found.explanation.tasks[0].name == "C"
    assert found.explanation.tasks[0].whole.a is None
    assert [(each.what, each.task, each.a, each.b) for each in found.contrasts] == [
        ("version", None, "2.16.3", "3"),
        ("in the workflow", "C", "no", "yes"),
    ]


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), max_size=20))
def test_bars_are_within_their_column_and_as_long_as_their_changes(changed: list[float]) -> None:
    """Less is on the left, more on the right, and a larger change has no shorter bar."""
    bars = change_bars(changed)

    for change, bar in zip(changed, bars, strict=True):
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH + 1e-6
        assert (bar.width > 0) == (change != 0)
        assert bar.x == pytest.approx(WIDTH / 2) if change > 0 else bar.x + bar.width == pytest.approx(WIDTH / 2)
        assert bar.is_more == (change > 0)
    by_size = sorted(zip(map(abs, changed), (bar.width for bar in bars), strict=True))
    assert [width for _, width in by_size] == sorted(width for _, width in by_size)
