"""
The versions of a workflow after which its runs took clearly longer or failed clearly more often, or the opposite.

Pure functions of the runs in the order in which they began. Each version is compared with the runs just before its
first one, back to the last change that was found. Not here: reading the runs (collect), and showing them
(pages.workflow).
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

LEAST_RUNS = 10
"""The number of runs that are needed of a version, and before it, to judge the version."""
MOST_RUNS = 50
"""The number of runs of each that are compared."""
LEAST_RATIO = 1.2
"""A median duration that has changed by less than this factor is not clearly another one."""
LEAST_POINTS = 10
"""The same for the share of failed runs, in percentage points."""
CHANCE = 0.01
"""The largest probability that any change is named although all versions are alike."""
_MOST_EXACT = 40
"""For more durations than that, of both sides together, the rank test uses the normal distribution."""
RULE = (
    f"A version is named if its first runs, at least {LEAST_RUNS} and at most {MOST_RUNS}, differ from as many runs "
    f"just before the first of them: by a factor of at least {LEAST_RATIO} in the median duration of those that "
    f"finished, or by at least {LEAST_POINTS} percentage points in the share of those that failed; and if "
    f"chance alone would name any version in less than {CHANCE:.0%} of such histories (Mann-Whitney test of the "
    "durations, Fisher's exact test of the failures)."
)
"""The rule in a sentence, for the page."""


class Measure(StrEnum):
    """What has changed after a version."""

    DURATION = "duration"
    FAILURES = "failures"


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that has ended."""

    version: str
    has_failed: bool
    seconds: float | None
    """Its duration; None if that is not known."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version after which a measure changed clearly."""

    version: str
    measure: Measure
    before: float
    """The median duration in seconds, or the share of failed runs from 0 to 1, of the runs before."""
    after: float
    """The same of the runs of the version."""
    runs_before: int
    runs_after: int
    """How many runs of each were compared."""
    probability: float
    """The probability that runs which are alike differ as much."""

    @property
    def is_regression(self) -> bool:
        """Whether it became worse."""
        return self.after > self.before


def changes(runs: Sequence[PastRun]) -> list[Change]:
    """
    Return the versions after which a measure changed clearly, in the order of their first runs.

    Args:
        runs: The runs of a workflow that have ended, in the order in which they began.
    """
    versions = list(dict.fromkeys(run.version for run in runs))
    series = {measure: _values_of(runs, value_of) for measure, (value_of, _) in _JUDGES.items()}
    # Each measure that can be judged after a version may have changed in two directions.
    judged = sum(len(list(_judgeable(each))) for each in series.values())
    chance = CHANCE / max(1, 2 * judged)
    found = [change for measure, each in series.items() for change in _changes(each, measure, chance)]
    return sorted(found, key=lambda change: versions.index(change.version))


def can_judge(runs: Sequence[PastRun]) -> bool:
    """Return True if there is a version with enough runs, and enough runs before it; the argument is as above."""
    return any(_judgeable(_values_of(runs, _failure)))


_Values = Sequence[tuple[str, float]]
"""The known values of a measure, each with the version of its run."""


def _values_of(runs: Sequence[PastRun], value_of: Callable[[PastRun], float | None]) -> _Values:
    return [(run.version, value) for run in runs if (value := value_of(run)) is not None]


def _judgeable(values: _Values) -> Iterator[tuple[str, int]]:
    """Yield the versions with enough values of and before them, with the places of their first values."""
    counts = Counter(version for version, _ in values)
    places: dict[str, int] = {}
    for place, (version, _) in enumerate(values):
        places.setdefault(version, place)
    for version, first in places.items():
        if first >= LEAST_RUNS and counts[version] >= LEAST_RUNS:
            yield version, first


def _changes(values: _Values, measure: Measure, chance: float) -> Iterator[Change]:
    _, judge = _JUDGES[measure]
    since = 0
    for version, first in _judgeable(values):
        before = [value for _, value in values[since:first]][-MOST_RUNS:]
        after = [value for each, value in values if each == version][:MOST_RUNS]
        if len(before) < LEAST_RUNS:
            continue
        middle_before, middle_after, probability = judge(before, after)
        if probability < chance:
            yield Change(version, measure, middle_before, middle_after, len(before), len(after), probability)
            # Later versions are compared with what is usual since then.
            since = first


def _duration(run: PastRun) -> float | None:
    return None if run.has_failed else run.seconds


def _failure(run: PastRun) -> float | None:
    return float(run.has_failed)


def _judged_durations(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return both medians, and the probability of so different durations; 1 if the medians are about the same."""
    first, second = statistics.median(before), statistics.median(after)
    is_clear = max(first, second) >= LEAST_RATIO * min(first, second) and first != second
    return first, second, mann_whitney(before, after) if is_clear else 1.0


def _judged_failures(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return both shares, and the probability of so different shares; 1 if they are about the same."""
    failed_before, failed_after = round(sum(before)), round(sum(after))
    first, second = failed_before / len(before), failed_after / len(after)
    # In whole numbers: the difference of the shares 0.3 and 0.2 is less than 0.1 as binary fractions.
    difference = abs(failed_after * len(before) - failed_before * len(after))
    if 100 * difference < LEAST_POINTS * len(before) * len(after):
        return first, second, 1.0
    return first, second, fisher(failed_before, len(before), failed_after, len(after))


_Judge = Callable[[Sequence[float], Sequence[float]], tuple[float, float, float]]
_JUDGES: dict[Measure, tuple[Callable[[PastRun], float | None], _Judge]] = {
    Measure.DURATION: (_duration, _judged_durations),
    Measure.FAILURES: (_failure, _judged_failures),
}


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """
    Return the probability of two samples of one distribution that one of them is as much above the other.

    It is the one-sided probability of the Mann-Whitney U test for the direction that is seen: for few values the exact
    one, by all ways to divide their ranks, and otherwise that of the normal approximation with corrections for ties and
    continuity (https://doi.org/10.1214/aoms/1177730491).
    """
    counts = Counter((*first, *second))
    # Twice the ranks, which are whole numbers also for ties.
    ranks: dict[float, int] = {}
    below = 0
    for value in sorted(counts):
        ranks[value] = 2 * below + counts[value] + 1
        below += counts[value]
    statistic = sum(ranks[value] for value in first)
    if len(first) + len(second) <= _MOST_EXACT:
        return _by_all_divisions([ranks[value] for value in (*first, *second)], len(first), statistic)
    return _by_normal_distribution(statistic, len(first), len(second), counts.values())


def _by_all_divisions(ranks: Sequence[int], count: int, statistic: int) -> float:
    """Return the share of the choices of so many ranks whose sum is as far on its side of the middle."""
    every = math.comb(len(ranks), count)
    # Each number has the choices of one length: how many have which sum, by the place of their count in its bits.
    width = every.bit_length()
    ways = [1, *([0] * count)]
    for rank in ranks:
        for length in range(count, 0, -1):
            ways[length] += ways[length - 1] << (rank * width)
    is_below = statistic * len(ranks) <= count * sum(ranks)
    sums = range(statistic + 1) if is_below else range(statistic, sum(ranks) + 1)
    return sum((ways[count] >> (total * width)) & ((1 << width) - 1) for total in sums) / every


def _by_normal_distribution(statistic: int, first: int, second: int, ties: Iterable[int]) -> float:
    size = first + second
    tied = sum(count**3 - count for count in ties)
    variance = first * second / 12 * (size + 1 - tied / (size * (size - 1)))
    if variance <= 0:
        return 1.0
    distance = max(0.0, abs(statistic - first * (size + 1)) / 2 - 0.5)
    return math.erfc(distance / math.sqrt(2 * variance)) / 2


def fisher(failed_before: int, before: int, failed_after: int, after: int) -> float:
    """
    Return the probability that as many or more of the failures are on the side that has the larger share of them.

    It is the one-sided probability of Fisher's exact test (https://doi.org/10.2307/2340521).
    """
    if failed_after * before < failed_before * after:
        failed_before, before, failed_after, after = failed_after, after, failed_before, before
    failed = failed_before + failed_after
    as_many = sum(
        math.comb(after, count) * math.comb(before, failed - count)
        for count in range(failed_after, min(failed, after) + 1)
    )
    return as_many / math.comb(before + after, failed)
