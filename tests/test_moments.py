"""
The times of attempts: from when they could begin, and what they waited for.
"""

from datetime import timedelta

from dkist_processing_core.events import Event, Graph, WorkflowStarted
from dkist_processing_core.runs import RunState, RunView
from dkist_processing_core.runs.moments import Moments, Part
from tests.facts import NOON, failed, finished, make, started

GRAPH = Graph(nodes=("A", "X", "B"), edges=(("A", "X"), ("X", "B")))


def run_of(*events: Event) -> RunView:
    """Return the run of some reports, whose task B comes after X, and this after A."""
    (run,) = RunState([make(WorkflowStarted, graph=GRAPH, reported_by="engine"), *events]).runs
    return run


def parts_of(view: RunView, name: str, attempt: int = 0) -> list[tuple[Part, int]]:
    """Return the parts of an attempt before it ran, in seconds."""
    task = next(task for task in view.tasks if task.name == name)
    stretches = Moments(view, NOON).stretches(task, task.attempts[attempt])
    return [(each.part, (each.end - each.begin).seconds) for each in stretches if each.part is not Part.RUNNING]


def at(seconds: int) -> dict[str, object]:
    """Return the time of a report."""
    return {"time": NOON + timedelta(seconds=seconds)}


def test_instances_of_a_mapped_task_wait_for_what_is_before_its_node() -> None:
    """What is behind the node waits for the last of them."""
    view = run_of(
        *(started("A", **at(0)), finished("A", **at(10))),
        *(started("X[0]", **at(12)), finished("X[0]", **at(50))),
        *(started("X[1]", **at(13)), finished("X[1]", **at(20))),
        started("B", **at(54)),
    )

    assert parts_of(view, "X[0]") == [(Part.WAITING, 2)]
    assert parts_of(view, "X[1]") == [(Part.WAITING, 3)]
    assert parts_of(view, "B") == [(Part.WAITING, 4)]


def test_while_an_instance_goes_on_it_is_not_known_when_the_next_node_could_begin() -> None:
    """A task that has begun earlier has no time of waiting."""
    view = run_of(started("X[0]", **at(1)), finished("X[0]", **at(5)), started("X[1]", **at(2)), started("B", **at(9)))

    assert parts_of(view, "B") == []


def test_a_retry_has_paused() -> None:
    """Only a first attempt waits for a worker alone."""
    first, second = {"attempt": 1, "max_attempts": 2}, {"attempt": 2, "max_attempts": 2}
    view = run_of(
        *(started("A", **at(3), **first), failed("A", **at(10), **first)),
        started("A", **at(70), **second),
    )

    assert parts_of(view, "A", 0) == [(Part.WAITING, 3)]
    assert parts_of(view, "A", 1) == [(Part.PAUSING, 60)]
