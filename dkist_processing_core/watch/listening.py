"""
The listening clock: the time during which the store was complete.

Not here: the spans of that time, which the collector stores (collect).
"""

from bisect import bisect_right
from collections.abc import Iterable


class Listening:
    """
    The spans of time in which every report that was on the bus was also in the store.

    Whatever delays the store ends a span: a broker that is down, a backlog, a process that is stopped, a machine that
    is suspended, a clock that was changed. So an absence counts only while a report would have been noticed.
    """

    def __init__(self, spans: Iterable[tuple[float, float]] = ()) -> None:
        """
        Store the spans.

        Args:
            spans: Beginning and end of each, in seconds since 1970 by the clock of the store, in the order in which
                they began. One that begins before an earlier one has ended follows a clock that was set back: the time
                that the clock shows twice counts once, for the later span.
        """
        disjoint: list[tuple[float, float]] = []
        for since, until in spans:
            while disjoint and disjoint[-1][0] >= since:
                disjoint.pop()
            if disjoint and disjoint[-1][1] > since:
                disjoint[-1] = (disjoint[-1][0], since)
            disjoint.append((since, until))
        self._spans = disjoint
        self._ends = [until for _, until in disjoint]
        # The sum of the spans after each.
        self._after = [0.0] * len(disjoint)
        for place in range(len(disjoint) - 2, -1, -1):
            since, until = disjoint[place + 1]
            self._after[place] = self._after[place + 1] + until - since

    @property
    def until(self) -> float | None:
        """The last moment at which the store was complete, the time of any judgement; None if it never was."""
        return self._ends[-1] if self._ends else None

    def seconds_since(self, moment: float) -> float:
        """Return for how many seconds the store has listened since a moment by its clock; 0 for a later moment."""
        place = bisect_right(self._ends, moment)
        if place == len(self._ends):
            return 0.0
        since, until = self._spans[place]
        return until - max(since, moment) + self._after[place]
