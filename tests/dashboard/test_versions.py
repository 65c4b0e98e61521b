"""
The runs of a workflow by version, and their chart.
"""

import math
import statistics
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.collect.questions.overview import RunDuration, Spread, TaskFigures
from dkist_processing_core.dashboard.analysis.versions import Version, in_order, past_runs, tasks_of, versions_of
from dkist_processing_core.dashboard.drawing.versions_chart import LEFT, SLOT, TOP, versions_chart
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State
from tests.facts import NOON

STATES = (State.FINISHED, State.FAILED, State.RUNNING)


@st.composite
def runs(draw: st.DrawFn) -> list[RunDuration]:
    """Return runs of some versions, in any order; the beginning or the duration of some is not known."""
    found = []
    for place in range(draw(st.integers(0, 12))):
        state, minutes = draw(st.sampled_from(STATES)), draw(st.none() | st.integers(0, 20))
        seconds = None if state is State.RUNNING else draw(st.none() | st.floats(0, 1e9))
        began_at = None if minutes is None else NOON + timedelta(minutes=minutes)
        run = Run("W", draw(st.sampled_from(["1", "2", "3"])), f"r{place}", None)
        found.append(RunDuration(run, state, began_at, None, seconds))
    return found


@given(runs())
def test_each_run_counts_for_its_version(given_runs: list[RunDuration]) -> None:
    """And the versions are in the order of their first runs."""
    ordered = in_order(given_runs)
    versions = versions_of(ordered)

    assert [run.began_at for run in ordered] == sorted(run.began_at for run in given_runs if run.began_at is not None)
    assert [version.first_at for version in versions] == sorted(
        version.first_at for version in versions if version.first_at is not None
    )
    for version in versions:
        of_version = [run for run in ordered if run.run.workflow_version == version.name]
        durations = [run.seconds for run in of_version if run.state is State.FINISHED and run.seconds is not None]
        ended = [run for run in of_version if run.state is not State.RUNNING]
        assert version.runs == len(of_version)
        assert version.finished + version.failed == len(ended)
        assert version.median == (statistics.median(durations) if durations else None)
        assert version.failure_rate == (version.failed / len(ended) if ended else None)
        if version.quartiles is not None and version.median is not None:
            assert version.quartiles[0] <= version.median <= version.quartiles[1]
    assert len(past_runs(ordered)) == sum(run.state is not State.RUNNING for run in ordered)


@given(runs())
def test_the_chart_is_within_its_box(given_runs: list[RunDuration]) -> None:
    """Every run that finished has a point in the place of its version, and a longer one is higher."""
    versions = versions_of(in_order(given_runs))
    chart = versions_chart(versions)

    assert chart.width == LEFT + SLOT * len(versions)
    assert 2 <= len(chart.ticks) <= 7
    assert [tick.y for tick in chart.ticks] == sorted((tick.y for tick in chart.ticks), reverse=True)
    for slot in chart.slots:
        assert len(slot.points) == len(slot.version.durations)
        for x, y in slot.points:
            assert slot.x <= x <= slot.x + SLOT <= chart.width
            assert TOP - 1e-6 <= y <= chart.base + 1e-6
        heights = [y for _, y in slot.points]
        by_duration = sorted(zip(slot.version.durations, heights, strict=True))
        assert [y for _, y in by_duration] == sorted(heights, reverse=True)
        assert chart.base <= slot.share_y <= chart.share_base < chart.height
        assert math.isclose(slot.share_y + slot.share_height, chart.share_base)


@pytest.mark.parametrize(
    ("longest", "last"), [(0.4, 1), (9, 10), (200, 240), (7200, 7200), (400_000, 432_000), (1e7, 10_368_000)]
)
def test_the_axis_ends_with_a_round_time(longest: float, last: float) -> None:
    """Of minutes, hours or days, above the longest run."""
    chart = versions_chart([Version("1", NOON, 1, 0, 0, (longest,))])

    assert chart.ticks[-1].seconds == last


def test_a_task_is_compared_with_the_version_before() -> None:
    """The order of the versions is that of their first runs, not that of their names."""
    figures = [
        TaskFigures("A", version, 10, failed, {}, None, None, Spread(10, median, median))
        for version, failed, median in (("1.10", 1, 30.0), ("1.9", 2, 20.0), ("1.8", 3, 90.0))
    ]

    (task,) = tasks_of(figures, ["1.8", "1.9", "1.10"])

    assert (task.latest.version, task.change_seconds) == ("1.10", 10.0)
    assert (task.attempts, task.failed, task.failure_rate) == (30, 6, 0.2)
