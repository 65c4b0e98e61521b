"""
A counter or a histogram of this process, to which several threads add.

Not here: totals that outlive the process (collect).
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping

from dkist_processing_core.metrics.measurement import Distribution, Kind, Measurement, Metric, Number

_Attributes = tuple[tuple[str, str], ...]


class Accumulator:
    """The values of one metric since the start of this process."""

    def __init__(self, metric: Metric, attributes: Mapping[str, str]) -> None:
        """
        Begin at zero.

        Args:
            metric: A counter or a histogram.
            attributes: Those that all its values have.
        """
        self._metric = metric
        self._attributes = dict(attributes)
        self._lock = threading.Lock()
        self._sums: dict[_Attributes, float] = {}
        self._counts: dict[_Attributes, list[int]] = {}

    def add(self, attributes: Mapping[str, str], value: float = 1.0, times: int = 1) -> None:
        """Add a value so many times, for a set of further attributes; to a histogram as a measured value."""
        key = tuple(sorted(attributes.items()))
        with self._lock:
            self._sums[key] = self._sums.get(key, 0.0) + value * times
            counts = self._counts.setdefault(key, [0] * (len(self._metric.bounds) + 1))
            counts[bisect_left(self._metric.bounds, value)] += times

    def measurement(self) -> Measurement:
        """Return the present values."""
        with self._lock:
            found = [(dict(key), total, tuple(self._counts[key])) for key, total in self._sums.items()]
        if self._metric.kind is Kind.HISTOGRAM:
            distributions = [Distribution(counts, total, self._attributes | key) for key, total, counts in found]
            return Measurement(self._metric, distributions)
        return Measurement(self._metric, [Number(total, self._attributes | key) for key, total, _ in found])
