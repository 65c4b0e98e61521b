"""
The profile of an attempt: a bounded number of points over its whole life, of memory and of rates.

Not here: the measurements (_processes), and the times at which they are taken (_sampling).
"""

from itertools import pairwise

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS = 60
"""The largest number of points."""
# The first points are this far apart, in seconds: a task of a few seconds has a profile as well.
_FIRST_WIDTH = 0.1
Point = tuple[float, int, float, float, float]
"""Seconds since the start, resident bytes, processors, and bytes read and written per second."""


class Profile:
    """
    Points of equal width in time, each of which holds the highest memory and the mean rates since the point before.

    When there are too many, each pair becomes one and the width doubles. Sums are kept rather than rates, so that no
    mean changes by that.
    """

    def __init__(self, points: int = POINTS, width: float = _FIRST_WIDTH) -> None:
        """Begin without points; at most `points`, an even number, are kept, at first `width` seconds apart."""
        self._most = points
        self._width = width
        # The time, the highest memory since the point before, and what was used up to that time.
        self._points: list[tuple[float, int, Sequence[float]]] = []

    def add(self, seconds: float, rss: int, used: "Sequence[float]") -> None:
        """
        Add a measurement.

        Args:
            seconds: The time since the start; later than that of the last measurement.
            rss: The resident memory at this time, in bytes.
            used: What was used since the start: processor seconds, bytes read, bytes written.
        """
        points = self._points
        if points and seconds <= (points[-2][0] if len(points) > 1 else 0.0) + self._width:
            points[-1] = seconds, max(rss, points[-1][1]), used
            return
        if len(points) == self._most:
            merged = zip(points[::2], points[1::2], strict=True)
            points[:] = [(time, max(one, other), sums) for (_, one, _), (time, other, sums) in merged]
            self._width *= 2
            self.add(seconds, rss, used)
            return
        points.append((seconds, rss, used))

    def points(self) -> list[Point]:
        """Return the points, oldest first."""
        origin = (0.0, 0, (0.0,) * 3)
        return [
            (round(time, 2), rss, round(cpu, 3), round(read), round(written))
            for (before, _, earlier), (time, rss, later) in pairwise([origin, *self._points])
            for cpu, read, written in [
                [max(0.0, to - since) / (time - before) for to, since in zip(later, earlier, strict=True)]
            ]
        ]
