"""
The rule that names a version after which runs took longer or failed more often: it finds a clear change, and no other.
"""

import math
import random
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.analysis import regressions
from dkist_processing_core.dashboard.analysis.regressions import (
    LEAST_RUNS,
    Measure,
    PastRun,
    can_judge,
    changes,
    fisher,
    mann_whitney,
)

SERIES = 60


def history(
    seed: int,
    *,
    runs: int = 25,
    versions: int = 6,
    noise: float = 0.1,
    failing: float = 0.1,
    slower_since: dict[int, float] | None = None,
    failing_since: dict[int, float] | None = None,
) -> Iterator[PastRun]:
    """Yield the runs of several versions, whose durations and failures change with some of them."""
    source = random.Random(seed)
    factor = 1.0
    for version in range(versions):
        factor = (slower_since or {}).get(version, factor)
        failing = (failing_since or {}).get(version, failing)
        for _ in range(runs):
            seconds = 600 * factor * source.lognormvariate(0, noise)
            yield PastRun(f"1.{version}", source.random() < failing, seconds)


def found_in(runs: Iterator[PastRun]) -> list[tuple[str, Measure, bool]]:
    """Return the versions that are named, what has changed, and whether it is worse."""
    return [(change.version, change.measure, change.is_regression) for change in changes(list(runs))]


@pytest.mark.parametrize(("noise", "failing"), [(0.02, 0.0), (0.3, 0.2), (1.0, 0.5)])
def test_without_a_change_no_version_is_named(noise: float, failing: float) -> None:
    """Of sixty histories of like versions, at most two have a false alarm; the rule allows less than one on average."""
    alarmed = [seed for seed in range(SERIES) if found_in(history(seed, noise=noise, failing=failing))]

    assert len(alarmed) <= 2


@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(1.5, 20), st.integers(15, 60))
def test_a_clear_rise_of_the_durations_is_named_with_its_version(
    seed: int, since: int, factor: float, runs: int
) -> None:
    """Later versions are as slow, and are not named again."""
    found = found_in(history(seed, runs=runs, failing=0.0, slower_since={since: factor}))

    assert (f"1.{since}", Measure.DURATION, True) in found
    assert len(found) == 1 or found == [(f"1.{since}", Measure.DURATION, True)]


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(25, 60))
def test_a_clear_rise_of_the_failures_is_named_with_its_version(seed: int, since: int, runs: int) -> None:
    """The durations of the runs that finished are as before."""
    found = found_in(history(seed, runs=runs, failing=0.0, failing_since={since: 0.9}))

    assert (f"1.{since}", Measure.FAILURES, True) in found


def test_a_return_to_what_was_is_named_as_an_improvement() -> None:
    """Each change is compared with the runs since the change before."""
    found = found_in(history(1, slower_since={2: 2.0, 4: 1.0}))

    assert found == [("1.2", Measure.DURATION, True), ("1.4", Measure.DURATION, False)]


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_the_unit_of_the_durations_and_the_names_of_the_versions_do_not_matter(seed: int, factor: float) -> None:
    """Only the order of the durations and their ratios count."""
    runs = list(history(seed, runs=15, slower_since={3: 1.6}))
    others = [PastRun(f"v{run.version}", run.has_failed, (run.seconds or 0) * factor) for run in runs]

    assert [f"v{change.version}" for change in changes(runs)] == [change.version for change in changes(others)]


@given(st.integers(0, 10**6), st.integers(1, LEAST_RUNS - 1))
def test_a_version_with_few_runs_is_not_judged(seed: int, runs: int) -> None:
    """However slow they were."""
    many = list(history(seed, versions=1, failing=0.0))
    few = [PastRun("2.0", has_failed=True, seconds=1e6)] * runs

    assert changes([*many, *few]) == []
    assert changes([*few, *many]) == []
    assert not can_judge([*many, *few])
    assert not can_judge([*few, *many])
    assert can_judge([*many, *[PastRun("2.0", has_failed=False, seconds=1.0)] * LEAST_RUNS])


def test_a_rise_that_is_small_is_not_named_however_sure_it_is() -> None:
    """A tenth more is seen on the page, and is no alarm."""
    assert found_in(history(1, runs=200, noise=0.01, failing=0.0, slower_since={3: 1.1})) == []


def test_runs_without_a_known_duration_count_for_the_failures_alone() -> None:
    """And nothing can be said about their durations."""
    runs = [PastRun("1", has_failed=False, seconds=None)] * 30 + [PastRun("2", has_failed=True, seconds=None)] * 30

    assert found_in(iter(runs)) == [("2", Measure.FAILURES, True)]


def test_versions_with_few_runs_do_not_hide_a_change() -> None:
    """A history of many versions that cannot be judged has as few judgements as one without them."""
    few = [
        PastRun(f"0.{version}", has_failed=False, seconds=600.0 + version) for version in range(500) for _ in range(2)
    ]
    before = [PastRun("1", has_failed=False, seconds=600.0 + number) for number in range(10)]
    after = [PastRun("2", has_failed=False, seconds=1200.0 + number) for number in range(10)]

    assert found_in(iter([*few[:2], *before, *after, *few[2:]])) == [("2", Measure.DURATION, True)]


def test_ten_runs_against_ten_are_enough_in_a_history_of_many_versions() -> None:
    """The probability of ten durations above ten others is exact: 5.4e-6, one of all ways to choose ten of twenty."""
    same = [
        PastRun(f"1.{version}", has_failed=False, seconds=600.0 + number)
        for version in range(90)
        for number in range(LEAST_RUNS)
    ]
    slower = [PastRun("2", has_failed=False, seconds=1200.0 + number) for number in range(LEAST_RUNS)]

    found = changes([*same[-LEAST_RUNS:], *slower, *same[:-LEAST_RUNS]])

    assert ("2", Measure.DURATION) in [(change.version, change.measure) for change in found]
    assert mann_whitney(range(10), range(10, 20)) == 1 / math.comb(20, 10)


def test_a_rise_by_exactly_ten_percentage_points_is_named() -> None:
    """As binary fractions, 0.3 - 0.2 is less than 0.1."""
    judge = regressions._JUDGES[Measure.FAILURES][1]
    before, after = [1.0] * 10 + [0.0] * 40, [1.0] * 15 + [0.0] * 35

    assert judge(before, after) == (0.2, 0.3, fisher(10, 50, 15, 50))
    assert judge(before, after[:-1])[2] < 1
    assert judge(before, [*after[1:], 0.0])[2] == 1


def test_no_history_has_no_change() -> None:
    """Neither does one of a single version."""
    assert changes([]) == []
    assert found_in(history(1, versions=1)) == []


@given(st.sets(st.integers(0, 9), min_size=5, max_size=5))
def test_the_rank_test_counts_all_orders(places: set[int]) -> None:
    """Of all choices of five of ten values, it is the share that is as far from the middle, on one side."""
    observed = pairs_above(places)
    counted = list(map(pairs_above, map(set, combinations(range(10), 5))))
    is_below = observed <= 5 * 5 / 2
    as_far = sum(each <= observed if is_below else each >= observed for each in counted) / len(counted)

    found = mann_whitney([float(place) for place in places], [float(each) for each in range(10) if each not in places])

    assert found == pytest.approx(as_far)


def test_the_rank_test_of_many_values_is_close_to_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with ties: it takes the normal distribution instead of all divisions."""
    source = random.Random(1)
    values = [source.lognormvariate(0, 1) // 0.2 for _ in range(40)]
    exact = mann_whitney([value + 1 for value in values[:20]], values[20:])
    monkeypatch.setattr(regressions, "_MOST_EXACT", 0)

    close = mann_whitney([value + 1 for value in values[:20]], values[20:])

    assert close != exact
    assert close == pytest.approx(exact, rel=0.1)


def pairs_above(places: set[int]) -> int:
    """Return the U of some of ten values: how many pairs with one of the others they win."""
    return sum(place > other for place in places for other in range(10) if other not in places)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_the_exact_test_is_the_share_of_the_ways_to_distribute_the_failures(
    before: int, after: int, data: st.DataObject
) -> None:
    """It is symmetric, and 1 without a failure."""
    failed_before, failed_after = data.draw(st.integers(0, before)), data.draw(st.integers(0, after))

    probability = fisher(failed_before, before, failed_after, after)

    assert 0 < probability <= 1
    assert probability == fisher(failed_after, after, failed_before, before) or failed_after * before == (
        failed_before * after
    )
    assert fisher(0, before, 0, after) == 1
    assert fisher(0, before, after, after) == pytest.approx(1 / math.comb(before + after, after))
