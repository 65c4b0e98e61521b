"""
Learnt limits: on the recorded runs of the example, and on durations that scatter in other ways.
"""

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.watch.limits import FEWEST, LATEST, SHORTEST_LIMIT_SECONDS, learnt_limit
from tests.strategies import examples

Draw = Callable[[Random, int], float]


def test_nothing_is_learnt_from_few_attempts() -> None:
    """Twenty are enough."""
    assert learnt_limit([10.0] * (FEWEST - 1)) is None
    assert learnt_limit([1000.0] * FEWEST) == 3000.0


def test_a_short_task_has_a_limit_of_a_minute() -> None:
    """A busy machine must not raise an alarm about a task of a second."""
    assert learnt_limit([0.0] * FEWEST) == SHORTEST_LIMIT_SECONDS
    assert learnt_limit([1.0, 1.5] * FEWEST) == SHORTEST_LIMIT_SECONDS


@given(durations=st.lists(st.floats(1.0, 1e6), min_size=FEWEST, max_size=LATEST), factor=st.sampled_from([2.0, 1024.0]))
def test_the_limit_is_above_almost_all_durations_and_has_their_scale(durations: list[float], factor: float) -> None:
    """Three times what one in a hundred exceeds, at least; a workflow that takes twice as long has twice the limit."""
    limit, larger = learnt_limit(durations), learnt_limit([factor * each for each in durations])

    assert limit is not None
    assert larger is not None
    assert sum(3 * each > limit for each in durations) <= len(durations) // 100
    assert larger == pytest.approx(factor * limit) or limit == SHORTEST_LIMIT_SECONDS


@given(
    durations=st.lists(st.floats(100.0, 200.0), min_size=100, max_size=LATEST - 2),
    extreme=st.floats(1e3, 1e9),
)
def test_an_extreme_attempt_in_a_hundred_has_no_influence(durations: list[float], extreme: float) -> None:
    """A success after a night in a queue of a file system makes no later hang unnoticed."""
    limit = learnt_limit([*durations, extreme])

    assert limit is not None
    assert limit <= 3 * 200.0


# A sequence of attempts, each judged by those before it


def _false_alarms(random: Random, draw: Draw, attempts: int) -> int:
    """
    Return how many of the attempts of a task would be reported although they succeed.
    """
    durations: list[float] = []
    count = 0
    for number in range(attempts):
        seconds = draw(random, number)
        limit = learnt_limit(durations[-LATEST:])
        count += limit is not None and seconds > limit
        durations.append(seconds)
    return count


def _log_normal(sigma: float) -> Draw:
    return lambda random, _: 600.0 * random.lognormvariate(0.0, sigma)


def _two_modes(random: Random, _: int) -> float:
    return random.choice([60.0, 60.0, 60.0, 900.0]) * random.lognormvariate(0.0, 0.1)


def _exponential(random: Random, _: int) -> float:
    return 60.0 + random.expovariate(1 / 600.0)


def _slower_by_version(random: Random, number: int) -> float:
    """
    After a hundred attempts, a version that takes 2.5 times as long; later one that takes 2.5 times as long as that.
    """
    return 600.0 * 2.5 ** (number // 100) * random.lognormvariate(0.0, 0.05)


def _slower_each_day(random: Random, number: int) -> float:
    return 600.0 * 1.01**number * random.lognormvariate(0.0, 0.1)


SPREAD: dict[str, Draw] = {
    "narrow": _log_normal(0.02),
    "usual": _log_normal(0.3),
    "heavy tail": _log_normal(1.0),
    "two modes": _two_modes,
    "exponential": _exponential,
    "slower by version": _slower_by_version,
    "slower each day": _slower_each_day,
}


@pytest.mark.parametrize("name", SPREAD)
def test_durations_that_scatter_raise_no_alarm(name: str) -> None:
    """Fifty tasks with 300 attempts each: at most one attempt in 5,000 is reported in vain."""
    random = Random(name)

    assert sum(_false_alarms(random, SPREAD[name], 300) for _ in range(50)) <= 3


@pytest.mark.parametrize(
    ("name", "most"),
    [("narrow", 3.3), ("usual", 7.0), ("slower by version", 20.0), ("two modes", 300.0), ("heavy tail", 300.0)],
)
def test_a_hang_is_noticed_after_a_multiple_of_the_median(name: str, most: float) -> None:
    """The limit follows the spread: for a task that always takes equally long, it is three times its duration."""
    random = Random(name)
    durations = [SPREAD[name](random, number) for number in range(LATEST)]
    limit = learnt_limit(durations)

    assert limit is not None
    assert 3 * max(durations[-20:]) * 0.4 < limit <= most * sorted(durations)[LATEST // 2]


@examples(2)
@given(sigma=st.floats(0.0, 0.5), seed=st.integers(0, 2**32))
def test_no_usual_spread_raises_an_alarm(sigma: float, seed: int) -> None:
    """Attempts between about a fifth and five times the median."""
    random = Random(seed)
    durations = [600.0 * math.exp(sigma * max(-3.2, min(3.2, random.gauss(0.0, 1.0)))) for _ in range(LATEST)]
    limit = learnt_limit(durations)

    assert limit is not None
    assert max(durations) <= limit
