"""
The versions of a workflow after which its runs took clearly longer or failed clearly more often, or the opposite.

Pure functions of the runs in the order in which they began. Each version is compared with the runs just before its
first one, back to the last change that was found. Not here: reading the runs (collect), and showing them
(pages.workflow).
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

LEAST_RUNS = 10
"""The number of runs that are needed of a version, and before it, to judge the version."""
MOST_RUNS = 50
"""The number of runs of each that are compared."""
LEAST_RATIO = 1.2
"""A median duration that has changed by less than this factor is not clearly another one."""
LEAST_SHARE = 0.1
"""The same for the share of failed runs: ten of a hundred runs."""
CHANCE = 0.01
"""The largest probability that any change is named although all versions are alike."""
RULE = (
    f"A version is named if its first runs, at least {LEAST_RUNS} and at most {MOST_RUNS}, differ from as many runs "
    f"just before the first of them: by a factor of at least {LEAST_RATIO} in the median duration of those that "
    f"finished, or by at least {LEAST_SHARE * 100:.0f} percentage points in the share of those that failed; and if "
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
    # Each version may change two measures in two directions.
    chance = CHANCE / max(1, 4 * (len(versions) - 1))
    found = [*_changes(runs, Measure.DURATION, chance), *_changes(runs, Measure.FAILURES, chance)]
    return sorted(found, key=lambda change: versions.index(change.version))


def can_judge(runs: Sequence[PastRun]) -> bool:
    """Return True if there is a version with enough runs, and enough runs before it; the argument is as above."""
    places: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault(run.version, []).append(place)
    return any(of_version[0] >= LEAST_RUNS <= len(of_version) for of_version in places.values())


def _changes(runs: Sequence[PastRun], measure: Measure, chance: float) -> list[Change]:
    value_of, judge = _JUDGES[measure]
    valued = [(run.version, value) for run in runs if (value := value_of(run)) is not None]
    found: list[Change] = []
    since = 0
    for version in dict.fromkeys(version for version, _ in valued):
        first = next(place for place, (each, _) in enumerate(valued) if each == version)
        before = [value for _, value in valued[since:first]][-MOST_RUNS:]
        after = [value for each, value in valued if each == version][:MOST_RUNS]
        if len(before) < LEAST_RUNS or len(after) < LEAST_RUNS:
            continue
        middle_before, middle_after, probability = judge(before, after)
        if probability < chance:
            found.append(Change(version, measure, middle_before, middle_after, len(before), len(after), probability))
            # Later versions are compared with what is usual since then.
            since = first
    return found


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
    if abs(second - first) < LEAST_SHARE:
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

    It is the one-sided probability of the Mann-Whitney U test for the direction that is seen, by the normal
    approximation with corrections for ties and continuity (https://doi.org/10.1214/aoms/1177730491).
    """
    size = len(first) + len(second)
    counts: dict[float, int] = {}
    for value in (*first, *second):
        counts[value] = counts.get(value, 0) + 1
    ranks, below = {}, 0
    for value in sorted(counts):
        ranks[value] = below + (counts[value] + 1) / 2
        below += counts[value]
    statistic = sum(ranks[value] for value in first) - len(first) * (len(first) + 1) / 2
    ties = sum(count**3 - count for count in counts.values())
    variance = len(first) * len(second) / 12 * (size + 1 - ties / (size * (size - 1)))
    if variance <= 0:
        return 1.0
    distance = max(0.0, abs(statistic - len(first) * len(second) / 2) - 0.5)
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
