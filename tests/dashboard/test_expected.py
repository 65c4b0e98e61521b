"""
The expected end of a run, by how long earlier attempts of its remaining tasks took.
"""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.collect.questions.overview import EarlierAttempt
from dkist_processing_core.dashboard.analysis.expected import (
    LEAST_ATTEMPTS,
    Expected,
    NotExpected,
    expected_end,
    remaining_tasks,
)
from dkist_processing_core.events import Event, Graph, WorkflowStarted
from dkist_processing_core.runs import RunView, State, kept_reports, run_view
from dkist_processing_core.testing.sample_run import SampleRun
from tests.facts import NOON, make, started


def _took(waiting: float, running: float) -> EarlierAttempt:
    """
    Return an attempt that took these seconds.
    """
    return EarlierAttempt("1", NOON, waiting, None, running)


_TIMES = st.lists(st.builds(_took, st.floats(0, 1e6), st.floats(0, 1e6)), min_size=LEAST_ATTEMPTS, max_size=20)


def _begun(*begun: str, tasks: str = "ABC", edges: tuple[tuple[str, str], ...] = (("A", "B"), ("A", "C"))) -> RunView:
    """
    Return a run of an engine in which tasks run, each since noon.
    """
    run = SampleRun(tasks=tasks, edges=edges)
    graph = Graph(nodes=tuple(tasks), edges=edges)
    identity = {
        "workflow_name": run.run.workflow_name,
        "workflow_version": run.run.workflow_version,
        "run_id": run.run.run_id,
    }
    began = make(WorkflowStarted, None, time=NOON, started_at=NOON, graph=graph, reported_by="engine", **identity)
    reports: list[Event] = [began]
    reports += [started(name, time=NOON, **identity) for name in begun]
    return run_view(kept_reports(reports))


def _earlier(**seconds: float) -> dict[str, list[EarlierAttempt]]:
    return {name: [_took(0.0, each)] * LEAST_ATTEMPTS for name, each in seconds.items()}


def test_a_run_ends_with_its_longest_path() -> None:
    """
    `A` runs for 4 of 10 seconds, and `C` takes longer than `B` after it.
    """
    found = expected_end(_begun("A"), _earlier(A=10.0, B=5.0, C=20.0), NOON + timedelta(seconds=4))

    assert isinstance(found, Expected)
    assert found.at == found.earliest == found.latest == NOON + timedelta(seconds=30)
    assert (found.tasks, found.attempts) == (3, LEAST_ATTEMPTS)


def test_tasks_that_have_not_begun_also_wait_for_a_worker() -> None:
    """
    Those that run do not wait any more.
    """
    earlier = {name: [_took(100.0, 10.0)] * LEAST_ATTEMPTS for name in "ABC"}

    found = expected_end(_begun("A"), earlier, NOON)

    assert isinstance(found, Expected)
    assert found.at == NOON + timedelta(seconds=120)


def test_the_time_that_a_task_has_waited_is_not_counted_again() -> None:
    """
    `A` could begin at noon, and attempts of it wait for half an hour; one that waits longer is expected to begin now.
    """
    view = _begun(tasks="A", edges=())
    earlier = {"A": [_took(1800.0, 60.0)] * LEAST_ATTEMPTS}
    minutes = (0, 29, 40)

    found = [expected_end(view, earlier, NOON + timedelta(minutes=each)) for each in minutes]

    ends = [each.at - NOON for each in found if isinstance(each, Expected)]
    assert ends == [timedelta(minutes=31), timedelta(minutes=31), timedelta(minutes=41)]


def test_only_the_attempts_that_are_used_are_counted() -> None:
    """
    Of a task that runs, those that took longer than it has by now.
    """
    earlier = {"A": [_took(0.0, seconds) for seconds in (10.0, 20.0, 30.0, 40.0, 50.0)]}
    view = _begun("A", tasks="A", edges=())

    found = [expected_end(view, earlier, NOON + timedelta(seconds=each)) for each in (0, 15, 25, 35)]

    assert [each.attempts if isinstance(each, Expected) else each for each in found] == [5, 4, 3, NotExpected.LONG]


def test_of_a_task_that_runs_longer_than_ever_no_end_is_expected() -> None:
    """
    Its earlier attempts are no evidence of when it ends.
    """
    found = expected_end(_begun("A"), _earlier(A=10.0, B=5.0, C=20.0), NOON + timedelta(seconds=60))

    assert found is NotExpected.LONG


@pytest.mark.parametrize("missing", ["A", "B", "C"])
def test_nothing_is_said_with_too_few_earlier_attempts(missing: str) -> None:
    """
    Of each remaining task there must be some.
    """
    earlier = _earlier(A=10.0, B=5.0, C=20.0)
    earlier[missing] = earlier[missing][1:]

    assert expected_end(_begun("A"), earlier, NOON) is NotExpected.FEW


def test_nothing_is_said_of_a_graph_with_a_circle() -> None:
    """
    A page must not fail by it.
    """
    view = _begun("A", edges=(("A", "B"), ("B", "C"), ("C", "B")))

    assert expected_end(view, _earlier(A=1.0, B=1.0, C=1.0), NOON) is NotExpected.CIRCLE


def test_the_reason_is_given_for_a_run_without_an_expected_end() -> None:
    """
    Its graph or its start may be missing, or all its tasks may have ended while the run goes on.
    """
    view = _begun("A", tasks="A", edges=())
    identity = {"workflow_name": "W", "run_id": "r"}
    without_graph = run_view(kept_reports([started("A", **identity)]))
    ended = replace(view, tasks=tuple(replace(task, state=State.FINISHED) for task in view.tasks))

    found = [expected_end(each, {}, NOON) for each in (without_graph, ended, replace(view, started_at=None))]

    assert found == [NotExpected.GRAPH, NotExpected.ENDED, NotExpected.START]


def test_instances_of_a_mapped_task_are_one_node() -> None:
    """
    What follows waits for all of them.
    """
    view = _begun("A[0]", "A[1]")

    assert {node: [task.name for task in tasks] for node, tasks in remaining_tasks(view).items()} == {
        "A": ["A[0]", "A[1]"],
        "B": ["B"],
        "C": ["C"],
    }


@given(_TIMES, _TIMES, _TIMES, st.floats(0, 1e6))
def test_the_expected_end_is_within_its_bounds(
    a: list[EarlierAttempt], b: list[EarlierAttempt], c: list[EarlierAttempt], elapsed: float
) -> None:
    """
    It is not before the present, and grows with each duration. Too few attempts that took as long say nothing.
    """
    now = NOON + timedelta(seconds=elapsed)
    found = expected_end(_begun("A"), {"A": a, "B": b, "C": c}, now)
    longer = [_took(each.waiting_seconds, each.run_seconds + 1) for each in c]
    later = expected_end(_begun("A"), {"A": a, "B": b, "C": longer}, now)

    left = [each for each in a if each.working_seconds >= (now - NOON).total_seconds()]
    if len(left) < LEAST_ATTEMPTS:
        assert found is NotExpected.LONG
        assert later is NotExpected.LONG
        return
    assert isinstance(found, Expected)
    assert isinstance(later, Expected)
    assert now <= found.earliest <= found.at <= found.latest
    assert found.at <= later.at
    assert found.attempts == min(map(len, (left, b, c)))
