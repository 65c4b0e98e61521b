"""
The profile of an attempt, for any measurements.
"""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.launcher._profile import POINTS, Point, Profile

# Seconds since the last measurement, resident bytes, and the growth of what was used since then.
_STEPS = st.lists(
    st.tuples(
        st.floats(0.01, 1000), st.integers(0, 2**40), st.floats(0, 100), st.integers(0, 2**40), st.integers(0, 2**40)
    ),
    min_size=1,
    max_size=400,
)


def profile_of(steps: list[tuple[float, int, float, int, int]]) -> tuple[list[Point], list[tuple[float, ...]]]:
    """
    Return the points of a profile, and the times and sums that were added to it.
    """
    profile = Profile()
    sums = [
        tuple(column)
        for column in zip(*(accumulate([step[part] for step in steps]) for part in (0, 2, 3, 4)), strict=True)
    ]
    for (seconds, *used), step in zip(sums, steps, strict=True):
        profile.add(seconds, step[1], used)
    return profile.points(), sums


@given(_STEPS)
def test_a_profile_of_any_length_is_bounded_and_ends_with_the_last_measurement(
    steps: list[tuple[float, int, float, int, int]],
) -> None:
    """
    It has at most sixty points, in order of time, and one for each measurement while these are few and far apart.
    """
    points, sums = profile_of(steps)

    times = [point[0] for point in points]
    assert 1 <= len(points) <= POINTS
    assert times == sorted(times)
    assert times[-1] == pytest.approx(sums[-1][0], abs=0.01)
    if len(steps) <= POINTS and min(step[0] for step in steps) > 0.2:
        assert len(points) == len(steps)


@given(_STEPS)
def test_decimation_loses_neither_the_peak_nor_any_work(steps: list[tuple[float, int, float, int, int]]) -> None:
    """
    The highest point is the highest measurement, and the rates times their durations are what was used.
    """
    points, sums = profile_of(steps)

    bounds = [0.0, *(point[0] for point in points)]
    assert max(point[1] for point in points) == max(step[1] for step in steps)
    for part in (1, 2, 3):
        work = sum(
            point[part + 1] * (end - begin) for point, (begin, end) in zip(points, pairwise(bounds), strict=True)
        )
        # Times are rounded to 0.01 s, and rates to whole bytes.
        slack = 0.02 * sum(point[part + 1] for point in points) + bounds[-1]
        assert work == pytest.approx(sums[-1][part], abs=slack)


@given(st.integers(1, 5000))
def test_regular_measurements_give_regular_points(count: int) -> None:
    """
    After the first minute of points, each point stands for the same time, between one and two parts of sixty.
    """
    points, _ = profile_of([(0.11, number, 1.0, 0, 0) for number in range(count)])

    widths = [end[0] - begin[0] for begin, end in pairwise(points[:-1])]
    assert len(points) >= min(count, POINTS // 2)
    assert max(widths, default=1) < 2 * min(widths, default=1) + 0.02
