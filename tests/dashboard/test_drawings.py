"""
The geometry of the drawings of a run: everything is inside, nothing overlaps, nothing is missing, and it is the same
each time.
"""

import math
import re
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.drawing.graph import NODE_HEIGHT, NODE_WIDTH, GraphLayout, laid_out
from dkist_processing_core.dashboard.drawing.labels import columns_of, fitted
from dkist_processing_core.dashboard.drawing.plot import HEIGHT, WIDTH, plot_of
from dkist_processing_core.dashboard.drawing.timeline import Timeline, most_memory_of
from dkist_processing_core.events import Event, Graph, Point
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.moments import Moments, Part
from dkist_processing_core.testing.sample_runs import SAMPLE_RUNS
from dkist_processing_core.text.terminal import visible_line
from tests.facts import NOON
from tests.strategies import reports, texts

_ROUNDING = 1e-6


def _graphs(most: int = 12) -> st.SearchStrategy[Graph]:
    """
    Return a strategy for graphs with any edges: circles, loops, repeated ones, and ones of nodes without a task.
    """
    names = st.sampled_from([f"T{number}" for number in range(most)] + ["unknown"])
    nodes = st.lists(names.filter(lambda name: name != "unknown"), unique=True).map(tuple)
    edges = st.lists(st.tuples(names, names), max_size=3 * most).map(tuple)
    return st.builds(Graph, nodes=nodes, edges=edges)


def _coordinates(path: str) -> list[tuple[float, float]]:
    """
    Return the points of a path's data, those of its curves included.
    """
    points: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([MCH])([^MCH]*)", path):
        values = list(map(float, numbers.split()))
        if command == "H":
            points.append((values[0], points[-1][1]))
        else:
            points += zip(values[::2], values[1::2], strict=True)
    return points


def _check(layout: GraphLayout, graph: Graph) -> None:
    """
    Check what holds for each layout.
    """
    by_name = {node.name: node for node in layout.nodes}
    assert set(by_name) == {*graph.nodes, *(name for edge in graph.edges for name in edge)}
    assert [(edge.upstream, edge.downstream) for edge in layout.edges] == list(dict.fromkeys(graph.edges))
    for node in layout.nodes:
        assert 0 <= node.x <= layout.width - NODE_WIDTH
        assert 0 <= node.y <= layout.height - NODE_HEIGHT
    for column in {node.column for node in layout.nodes}:
        heights = sorted(node.y for node in layout.nodes if node.column == column)
        assert all(below - above >= NODE_HEIGHT for above, below in pairwise(heights))
    for edge in layout.edges:
        points = _coordinates(edge.path)
        start, end = by_name[edge.upstream], by_name[edge.downstream]
        assert all(math.isfinite(x) and 0 <= x <= layout.width for x, _ in points)
        assert all(math.isfinite(y) and 0 <= y <= layout.height for _, y in points)
        # A path has one decimal.
        assert start.x - 0.1 <= points[0][0] <= start.x + NODE_WIDTH + 0.1
        assert end.x - 0.1 <= points[-1][0] <= end.x + NODE_WIDTH + 0.1
        assert end.y - 0.1 <= points[-1][1] <= end.y + NODE_HEIGHT + 0.1


@given(_graphs())
def test_each_node_and_edge_of_any_graph_has_a_place(graph: Graph) -> None:
    """
    Nodes of a column do not overlap, and all edges begin and end at their nodes, within the drawing.
    """
    _check(laid_out(graph), graph)


@given(_graphs())
def test_a_layout_depends_on_the_graph_alone(graph: Graph) -> None:
    """
    Nodes do not move while a run goes on, in another process, or after the layout was forgotten.
    """
    first = laid_out(graph)
    laid_out.cache_clear()

    assert first == laid_out(graph)


@given(_graphs())
def test_a_task_without_a_circle_is_to_the_right_of_its_upstreams(graph: Graph) -> None:
    """
    A reader follows a workflow from left to right.
    """
    places = {name: place for place, name in enumerate(graph.nodes)}
    ordered = tuple(edge for edge in graph.edges if places.get(edge[0], 99) < places.get(edge[1], -1))
    columns = {node.name: node.column for node in laid_out(Graph(nodes=graph.nodes, edges=ordered)).nodes}

    assert all(columns[upstream] < columns[downstream] for upstream, downstream in ordered)


@pytest.mark.parametrize("shape", ["chain", "fan", "layers", "all before"])
def test_a_thousand_tasks_are_laid_out(shape: str) -> None:
    """
    Also with more edges over several columns than are drawn with bends.
    """
    names = tuple(f"Task{number}" for number in range(1000))
    pairs = {
        "chain": list(pairwise(range(1000))),
        "fan": [(0, each) for each in range(1, 999)] + [(each, 999) for each in range(1, 999)],
        "layers": [(each, each + 50 + each % 7) for each in range(940)],
        "all before": [(each, 900 + each % 100) for each in range(900)] + list(pairwise(range(1000))),
    }[shape]
    graph = Graph(nodes=names, edges=tuple((names[first], names[second]) for first, second in dict.fromkeys(pairs)))

    layout = laid_out(graph)

    _check(layout, graph)
    fullest = max(sum(node.column == column for node in layout.nodes) for column in {n.column for n in layout.nodes})
    assert layout.height <= 20 * fullest * (NODE_HEIGHT + 40) + 1000


def test_an_empty_graph_has_no_node() -> None:
    """
    A workflow without tasks does not break a page.
    """
    layout = laid_out(Graph(nodes=(), edges=()))

    assert (layout.nodes, layout.edges, layout.path) == ((), (), "")


@given(texts(60), st.integers(3, 40))
def test_a_label_fits_and_hides_nothing(text: str, columns: int) -> None:
    """
    Wide characters count twice, and control characters are escapes.
    """
    label = fitted(text, columns)

    assert columns_of(label) <= columns
    assert visible_line(label) == label


@given(reports(), st.integers(-3, 12))
def test_bars_are_within_the_axis_and_in_order(events: list[Event], minutes: int) -> None:
    """
    For any reports, true or false, and at any time.
    """
    runs = {event.run_id: [each for each in events if each.run_id == event.run_id] for event in events}
    for of_run in runs.values():
        view = run_view(kept_reports(of_run))
        moments = Moments(view, NOON + timedelta(minutes=minutes))
        attempts = [attempt for task in view.tasks for attempt in task.attempts]
        timeline = Timeline(moments, most_memory_of(attempts))
        for task in view.tasks:
            for attempt in task.attempts:
                lane = timeline.lane(task, attempt)
                for bar in lane.bars:
                    assert bar.width > 0
                    assert bar.x >= 0
                    assert bar.x + bar.width <= 100 + _ROUNDING
                kinds = [bar.kind for bar in lane.bars if bar.kind in set(Part)]
                assert kinds == [part for part in Part if part in kinds]
                if lane.band is not None:
                    assert all(0 <= float(n) <= 100 for n in re.split("[ ,]", lane.band.points))
        marks = [tick.x for tick in timeline.ticks]
        assert marks == sorted(marks)
        assert all(0 <= mark <= 100 for mark in marks)


@pytest.mark.parametrize("name", SAMPLE_RUNS)
def test_each_attempt_that_ran_has_a_bar(name: str) -> None:
    """
    Phases divide the bar of the process, and the memory of a profile has a band.
    """
    run = SAMPLE_RUNS[name]()
    view = run_view(kept_reports(run.events))
    moments = Moments(view, run.clock.now)
    attempts = [attempt for task in view.tasks for attempt in task.attempts]
    timeline = Timeline(moments, most_memory_of(attempts))
    for task in view.tasks:
        for attempt in task.attempts:
            lane = timeline.lane(task, attempt)
            running = [bar for bar in lane.bars if bar.kind == Part.RUNNING]
            phases = [bar for bar in lane.bars if bar.kind in ("pre_run", "run", "post_run")]
            assert len(running) == 1
            assert {bar.kind for bar in phases} == {
                name for name, seconds in (attempt.end.phases if attempt.end else {}).items() if seconds
            }
            assert sum(bar.width for bar in phases) <= running[0].width + _ROUNDING
            assert (lane.band is not None) == bool(attempt.end and attempt.end.profile)


_VALUES = st.one_of(st.just(0.0), st.floats(0, 1e300))
_POINTS = st.lists(
    st.tuples(st.floats(0, 1e12), st.integers(0, 2**63), _VALUES, _VALUES, _VALUES), min_size=1, max_size=60
)


@given(_POINTS)
def test_a_plot_is_within_its_box(profile: list[Point]) -> None:
    """
    For any profile; what was never used has no curve.
    """
    plot = plot_of(tuple(profile))

    if plot is None:
        assert max(point[0] for point in profile) <= 0 or not any(any(point[1:]) for point in profile)
        return
    for curve in plot.curves:
        numbers = list(map(float, re.split("[ ,]", curve.area)))
        assert all(-0.1 <= x <= WIDTH + 0.1 for x in numbers[::2])
        assert all(-0.1 <= y <= HEIGHT + 0.1 for y in numbers[1::2])
    assert len(plot.curves) == sum(any(point[place] for point in profile) for place in range(1, 5))
