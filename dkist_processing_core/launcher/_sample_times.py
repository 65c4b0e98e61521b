"""
The times at which a launcher reports that its task lives.

At a steady interval a thousand running tasks would fill the archive of a bus, so the interval grows with the age of an
attempt. Not here: the content of the report (_sampling), and publishing (_reports).
"""

_STEADY_SECONDS = 600.0
_LONGEST_SECONDS = 300.0


class SampleTimes:
    """The times of the samples of one attempt: steady for ten minutes, and then less and less often."""

    def __init__(self, seconds: float) -> None:
        """Begin with an interval of `seconds`, above 0."""
        self._longest = max(seconds, _LONGEST_SECONDS)
        self._interval = seconds
        self._due = seconds

    def left(self, age: float) -> float:
        """Return the time until the next sample is due, at an age of the attempt, in seconds; at least 0."""
        return max(0.0, self._due - age)

    def take(self, age: float) -> float | None:
        """
        Return the time until the next sample if one is due now; None if it is not due yet.

        Args:
            age: The age of the attempt, in seconds.
        """
        if age < self._due:
            return None
        if age >= _STEADY_SECONDS:
            self._interval = min(2 * self._interval, self._longest)
        self._due = age + self._interval
        return self._interval
