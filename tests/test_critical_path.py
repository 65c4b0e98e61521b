"""
The critical path of a run: its parts leave no time out, and clocks that differ do not break it.
"""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.events import (
    Event,
    Graph,
    TaskDispatched,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.runs import RunState, RunView, run_view
from dkist_processing_core.runs.critical_path import (
    ENVIRONMENT,
    PROCESS,
    QUEUE,
    RETRIES,
    critical_path,
    task_times,
)
from tests.facts import NOON, failed, finished, make, started
from tests.strategies import examples, reports

NONE = timedelta(0)


def seconds(count: float) -> timedelta:
    """Return a duration."""
    return timedelta(seconds=count)


def run_of(*events: Event) -> RunView:
    """Return the run of some reports."""
    (run,) = RunState(events).runs
    return run


def diamond(*events: Event) -> RunView:
    """Return a run of 100 s whose tasks Left and Right come after First, and Last after both."""
    edges = (("First", "Left"), ("First", "Right"), ("Left", "Last"), ("Right", "Last"))
    graph = Graph(nodes=("First", "Left", "Right", "Last"), edges=edges)
    return run_of(
        make(WorkflowStarted, graph=graph, reported_by="engine"),
        *events,
        make(WorkflowFinished, time=NOON + seconds(100), reported_by="engine"),
    )


def ran(name: str, first: float, last: float, **facts: object) -> tuple[Event, Event]:
    """Return the start and the success of a task."""
    return started(name, time=NOON + seconds(first)), finished(name, time=NOON + seconds(last), **facts)


def test_the_path_leads_over_the_task_that_ended_last() -> None:
    """Each task on it could begin when the one before had ended; what remains belongs to no task."""
    view = diamond(*ran("First", 5, 20), *ran("Left", 21, 40), *ran("Right", 22, 70), *ran("Last", 71, 95))

    path = critical_path(view, NOON)

    assert path is not None
    assert [(time.name, time.duration) for time in path.tasks] == [
        ("First", seconds(20)),
        ("Right", seconds(50)),
        ("Last", seconds(25)),
    ]
    assert path.outside == seconds(5)


def test_the_time_of_a_task_has_its_queue_its_tries_its_environment_and_its_phases() -> None:
    """They follow each other, and what no phase has is a part too."""
    first, second = {"attempt": 1, "max_attempts": 2}, {"attempt": 2, "max_attempts": 2}
    view = diamond(
        *ran("First", 0, 10),
        make(TaskDispatched, "Left", time=NOON + seconds(12), **first),
        started("Left", time=NOON + seconds(13), **first),
        failed("Left", time=NOON + seconds(20), **first),
        make(TaskDispatched, "Left", time=NOON + seconds(30), **second),
        started("Left", time=NOON + seconds(34), **second),
        finished("Left", time=NOON + seconds(60), phases={"pre_run": 1.0, "run": 20.0}, **second),
    )

    assert task_times(view, NOON)["Left"].parts == {
        QUEUE: seconds(2),
        RETRIES: seconds(18),
        ENVIRONMENT: seconds(4),
        "pre_run": seconds(1),
        "run": seconds(20),
        PROCESS: seconds(5),
    }


def test_a_task_that_was_passed_over_does_not_end_the_path() -> None:
    """The task behind it waited for the one before it."""
    graph = Graph(nodes=("A", "B", "C"), edges=(("A", "B"), ("B", "C")))
    view = run_of(make(WorkflowStarted, graph=graph, reported_by="engine"), *ran("A", 0, 30), *ran("C", 31, 40))

    path = critical_path(view, NOON + seconds(50))

    assert path is not None
    assert [time.name for time in path.tasks] == ["A", "C"]
    assert path.outside == seconds(10)


def test_instances_of_a_mapped_task_are_one_node_of_the_path() -> None:
    """They wait for what the node waits for, and what follows waits for the last of them."""
    graph = Graph(nodes=("A", "X", "B"), edges=(("A", "X"), ("X", "B")))
    instances = (*ran("X[0]", 12, 30), *ran("X[1]", 13, 50), *ran("X[2]", 14, 40))
    view = run_of(
        make(WorkflowStarted, graph=graph, reported_by="engine"), *ran("A", 0, 10), *instances, *ran("B", 52, 60)
    )

    until = NOON + seconds(60)
    path, times = critical_path(view, until), task_times(view, until)

    assert path is not None
    assert [(time.name, time.duration) for time in path.tasks] == [
        ("A", seconds(10)),
        ("X[1]", seconds(40)),
        ("B", seconds(10)),
    ]
    assert [times[name].parts[QUEUE] for name in ("X[0]", "X[1]", "X[2]", "B")] == list(map(seconds, (2, 3, 4, 2)))


def test_without_a_graph_a_task_waits_for_the_last_one_that_ended_before_it() -> None:
    """Tasks that ran beside each other do not wait for each other."""
    view = run_of(*ran("A", 0, 10), *ran("B", 2, 20), *ran("C", 21, 30))

    path = critical_path(view, NOON + seconds(30))

    assert path is not None
    assert [time.name for time in path.tasks] == ["B", "C"]


def test_what_goes_on_counts_until_now() -> None:
    """The running task is the last one of the path."""
    view = run_of(make(WorkflowStarted, reported_by="engine"), started("A", time=NOON + seconds(3)))

    path = critical_path(view, NOON + seconds(60))

    assert path is not None
    assert path.tasks[0].parts == {QUEUE: seconds(3), PROCESS: seconds(57)}


@examples(2)
@given(reports(), st.integers(-3, 10))
def test_the_parts_are_consecutive_and_leave_no_time_out(received: list[Event], minutes: int) -> None:
    """For any reports: also with clocks that contradict each other, and times that are missing."""
    for run_id in {event.run_id for event in received}:
        view = run_view([event for event in received if event.run_id == run_id])
        path = critical_path(view, NOON + timedelta(minutes=minutes))
        if path is None:
            continue
        for time in (*path.tasks, *task_times(view, NOON + timedelta(minutes=minutes)).values()):
            assert sum(time.parts.values(), NONE) == time.duration
            assert all(part > NONE for part in time.parts.values())
            assert path.started_at <= time.ready_at <= time.ended_at <= path.ended_at
        assert [time.ended_at for time in path.tasks[:-1]] == [time.ready_at for time in path.tasks[1:]]
        assert path.outside >= NONE
        assert len({time.name for time in path.tasks}) == len(path.tasks)
