"""
The limit of a task's duration that is learnt from its earlier attempts.

A pure function. Not here: reading the durations (reading), and comparing attempts with the limit (judging).
"""

import math
import statistics
from collections.abc import Sequence

FEWEST = 20
"""The number of earlier attempts below which nothing is learnt."""
LATEST = 200
"""The number of attempts from which a limit is learnt: the latest, so that it follows a version that is slower."""
SHORTEST_LIMIT_SECONDS = 60.0
"""The shortest limit that is learnt: on a busy machine, a task of a second may take many times as long."""
_SHARE = 0.99
_SMALLEST_FACTOR = 3.0


def learnt_limit(durations: Sequence[float]) -> float | None:
    """
    Return the duration above which an attempt is overdue, in seconds; None if too few attempts are known.

    It is a multiple of the duration that one attempt in a hundred exceeds: three times, or more if the durations of the
    task scatter more, namely as many times as that duration is longer than the median. Durations scatter by factors
    rather than by seconds. For a logarithmic normal distribution of any width, this limit is 4.7 standard deviations
    above the median, and one attempt in 600,000 exceeds it. A few extreme attempts in a hundred have no influence.

    Args:
        durations: The durations of the latest successful attempts, in seconds, in any order.
    """
    if len(durations) < FEWEST:
        return None
    ordered = sorted(durations)
    upper = ordered[math.ceil(_SHARE * len(ordered)) - 1]
    median = statistics.median(ordered)
    spread = upper / median if median > 0 else _SMALLEST_FACTOR
    return max(SHORTEST_LIMIT_SECONDS, upper * max(_SMALLEST_FACTOR, spread))
