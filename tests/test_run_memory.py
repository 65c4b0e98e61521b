"""
The reports that `RunState` keeps and releases.
"""

import gc
import itertools
import os
import re
import subprocess
import sys
import weakref

from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.events import Event, Graph, WorkflowStarted, encode
from dkist_processing_core.runs import RunState, State
from dkist_processing_core.runs._stored_reports import HeldViews, Shapes
from tests.facts import failed, finished, make, progressed, started
from tests.running import ROOT
from tests.strategies import events, examples

_COUNT = 20_000


@examples(6)
@given(st.lists(events(), max_size=5), st.sampled_from([0, 1, 1000]))
def test_what_is_kept_of_a_report_is_all_that_it_states(reports: list[Event], limit: int) -> None:
    """
    Unpacked reports equal the packed ones to the byte, for every class of events and any number of combinations of
    fields.
    """
    shapes = Shapes(limit)
    packed = [shapes.pack(report, {}) for report in reports]

    again = [
        shapes.unpack((report.workflow_name, report.workflow_version, report.run_id), values)
        for report, values in zip(reports, packed, strict=True)
    ]

    assert again == reports
    assert list(map(encode, again)) == list(map(encode, reports))


def test_a_profile_takes_three_kilobytes() -> None:
    """
    As objects it would take fifteen; it comes back with the same numbers.
    """
    points = tuple((place + 1 / 3, 2**53 + place, 1 / 3, 1e9 / 7, 1e9 / 7) for place in range(60))
    report, shapes = finished("A", profile=points), Shapes()

    packed = shapes.pack(report, {})

    assert 2000 < sum(map(sys.getsizeof, packed)) < 4000
    assert not any(map(gc.is_tracked, packed[1:]))
    assert shapes.unpack(("W", "1", "r"), packed) == report


def test_combinations_of_fields_take_memory_up_to_a_limit() -> None:
    """
    A foreign publisher may send a combination for each subset of an event's fields.
    """
    shapes = Shapes(limit=10)
    fields = ["message", "stack", "log_url", "phase", "error_type"]
    for count in range(len(fields) + 1):
        for names in itertools.combinations(fields, count):
            shapes.pack(failed("A", **dict.fromkeys(names, "a")), {})

    assert len(shapes._shapes) == 11


def test_an_event_takes_less_than_a_kilobyte() -> None:
    """
    `benchmarks.folding` measures it in a separate process. The message of the event is not kept.
    """
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.folding", str(_COUNT)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    found = re.search(r"([\d,]+) bytes an event", told.stdout)
    assert found is not None
    assert int(found[1].replace(",", "")) < 1000


def test_a_run_is_kept_until_it_is_forgotten() -> None:
    """
    Until then, all its reports are kept. The reports of other runs stay.
    """
    state = RunState([started("A"), finished("A"), started("A", run_id="r2"), started("A", workflow_name="V")])

    was_known, is_known = state.forget("r"), state.forget("r")

    assert (was_known, is_known) == (True, False)
    assert state.run("r") is None
    assert [run.run.run_id for run in state.runs] == ["r2"]
    assert len(state._runs) == 1


def test_a_report_on_a_forgotten_run_begins_it_anew() -> None:
    """
    The new state does not contain the earlier reports.
    """
    state = RunState([started("A"), finished("A")])
    state.forget("r")

    is_new = state.fold(finished("A"))
    run = state.run("r")

    assert is_new
    assert run is not None
    assert [(task.name, task.state, task.attempts[0].started_at) for task in run.tasks] == [("A", State.FINISHED, None)]


def test_a_view_is_made_once_and_held_until_a_new_report_on_its_run() -> None:
    """
    The same view is returned again, even if the caller has released it.
    """
    state = RunState([started("A"), started("A", run_id="r2")])
    changed, same = (weakref.ref(view) for view in state.runs)

    state.fold(started("A"))
    before = [id(view) for view in state.runs]
    is_same = before == [id(changed()), id(same())]
    state.fold(finished("A"))
    gc.collect()
    is_gone = changed() is None
    state.forget("r2")
    gc.collect()

    assert (is_same, is_gone, same() is None) == (True, True, True)


def test_a_view_with_a_profile_takes_the_room_of_several() -> None:
    """
    Sixty points take as much memory as thirty reports.
    """
    points = tuple((float(place), place, 1.0, 0.0, 0.0) for place in range(60))
    (plain,) = RunState([started("A"), finished("A")]).runs
    (profiled,) = RunState([started("A"), finished("A", profile=points)]).runs
    held = HeldViews(limit=33)

    for key, view in (("r1", plain), ("r2", profiled), ("r3", plain)):
        held.hold((key, "", ""), view, 2)
    before = list(held._held)
    held.release(("r1", "", ""))
    held.hold(("r3", "", ""), plain, 2)
    held.release(("r3", "", ""))
    held.hold(("r2", "", ""), profiled, 2)

    assert before == [("r1", "", ""), ("r3", "", "")]
    assert list(held._held) == [("r2", "", "")]


def test_views_are_held_as_far_as_there_is_room() -> None:
    """
    With very many runs, the state releases most views, unless the caller holds them.
    """
    state, held = RunState([started("A"), finished("A"), started("A", run_id="r2")]), HeldViews(limit=2)
    first, second = state.runs
    state._held = HeldViews(limit=0)
    for view, reports in ((first, 2), (second, 1)):
        held.hold((view.run.run_id, "", ""), view, reports)
    references = [weakref.ref(first), weakref.ref(second)]
    is_same = state.runs == (first, second)
    del first, second, view
    gc.collect()

    assert is_same
    assert [each() is None for each in references] == [False, True]
    held.release(("r", "", ""))
    gc.collect()
    assert references[0]() is None


def test_a_run_that_is_looked_at_after_each_report_shows_what_all_reports_state() -> None:
    """
    The unpacked reports of a run are cached until a view of another run is requested.
    """
    reports = [started("A"), progressed("A", 1), started("A"), progressed("A", 2), finished("A"), started("B")]
    state = RunState([started("A", run_id="r2")])

    for count, report in enumerate(reports, start=1):
        state.fold(report)
        assert state.run("r") == RunState(reports[:count]).run("r")
    kept = state._runs["W", "1", "r"]
    was_ready = kept._unpacked is not None
    state.run("r2")

    assert was_ready
    assert kept._unpacked is None


def test_runs_of_one_workflow_share_its_graph() -> None:
    """
    The graph is the largest part that runs repeat. It is released with the last of them.
    """
    names = [f"T{number}" for number in range(50)]
    state = RunState(
        make(WorkflowStarted, run_id=f"r{number}", graph=Graph(nodes=tuple(names), edges=())) for number in range(3)
    )

    first, second, third = (run.graph for run in state.runs)
    is_shared = first is second is third
    assert first is not None
    reference = weakref.ref(first)
    del first, second, third
    for number in range(3):
        state.forget(f"r{number}")
    gc.collect()

    assert is_shared
    assert reference() is None
