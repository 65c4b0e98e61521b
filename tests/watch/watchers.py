"""
The watchers of generated histories: processes that are stopped, late, cut off and started again, whose clocks change.

Not here: the history (world), the stores that they keep (kept), and what they must report (truth).
"""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Self

from dkist_processing_core.events import Event
from tests.watch.kept import Kept
from tests.watch.world import BEGIN, DrawnWorld, Interval, World, is_in

STRIDE = 4.0
"""The time between two looks of a watcher, in seconds."""
RECOVERY = 60.0
"""How long a watcher does not listen after the bus was disturbed, or after its start, in seconds."""
_GAP = 5.0


@dataclass(slots=True)
class Disturbances:
    """
    What disturbs a watcher, and when in true time.
    """

    suspended: list[Interval] = field(default_factory=list)
    """When its process, or its machine, is stopped and goes on later."""
    ended: list[Interval] = field(default_factory=list)
    """When it has no process."""
    unlinked: list[Interval] = field(default_factory=list)
    """When it alone is cut off from the bus."""
    slow: list[Interval] = field(default_factory=list)
    """When it takes one message at a look, so that others wait in its queue."""
    steps: list[tuple[float, float]] = field(default_factory=list)
    """When its clock is changed, and by how many seconds."""

    @classmethod
    def drawn(cls, world: DrawnWorld) -> Self:
        """
        Draw disturbances.
        """
        draw, sizes = world.intervals, world.random
        steps = [(since, sizes.choice([-1, 1]) * sizes.uniform(6.0, 300.0)) for since, _ in draw(0.3, 1.0, 2.0)]
        return cls(draw(0.4, 6.0, 300.0), draw(0.3, 6.0, 300.0), draw(0.3, 6.0, 200.0), draw(0.3, 30.0, 300.0), steps)


class Watcher:
    """
    One watcher, with its queue, its store and its clock.
    """

    def __init__(
        self, world: World, disturbances: Disturbances, kept: Kept, publish: Callable[[float, Event], None]
    ) -> None:
        """
        Start without messages.

        Args:
            world: The history.
            disturbances: What disturbs it.
            kept: The store that it keeps.
            publish: Called with the true time and a report of the watcher.
        """
        self._kept = kept
        self._publish = publish
        self._outages = world.outages
        self.disturbances = disturbances
        self._queue: list[tuple[float, int, Event]] = []
        self._places = count()
        self._received: dict[str, float] = {}
        self._made: Counter[str] = Counter()
        self._repeated: list[str] = []
        self._is_running = False
        self._is_disturbed = False
        # The true time up to which it does not listen, whatever it knows of that.
        self._deaf_until = RECOVERY
        self._looked_at = 0.0
        self._heard_until = -1.0
        self._times: list[float] = []
        self._totals: list[float] = []
        self._latest_shown = 0.0

    def offer(self, messages: Iterable[tuple[float, Event]]) -> None:
        """
        Add messages to its queue, each with the time at which it reaches the bus.
        """
        for at, event in messages:
            heapq.heappush(self._queue, (at, next(self._places), event))

    def clock(self, time: float) -> float:
        """
        Return what its clock shows at a true time.
        """
        return BEGIN + time + sum(step for since, step in self.disturbances.steps if since <= time)

    def look(self, time: float) -> None:
        """
        Let it do at a true time what it can do then.
        """
        if is_in(self.disturbances.ended, time):
            self._is_running = False
            return
        if is_in(self.disturbances.suspended, time):
            return
        if not self._is_running:
            self._is_running = True
            self._made = Counter()
            self._kept.start(time)
            self._disturb(time)
        is_linked = not is_in(self._outages, time) and not is_in(self.disturbances.unlinked, time)
        if not is_linked:
            self._is_disturbed = True
        elif self._is_disturbed or self._was_disturbed(time):
            self._is_disturbed = False
            self._disturb(time)
        self._looked_at = time
        if is_linked:
            self._take(time)
        has_caught_up = is_linked and not (self._queue and self._queue[0][0] <= time)
        self._count(time, has_caught_up=has_caught_up)
        shown = self.clock(time)
        for event in self._kept.look(shown, time, has_caught_up=has_caught_up):
            self._made[event.id] += 1
            if self._made[event.id] > 1:
                self._repeated.append(event.subject)
            self._publish(time, event)

    def _was_disturbed(self, time: float) -> bool:
        """
        Return whether its connection broke while it was suspended.
        """
        return any(self._looked_at < until <= time for _, until in [*self._outages, *self.disturbances.unlinked])

    def _disturb(self, time: float) -> None:
        self._deaf_until = time + RECOVERY
        self._kept.disturbed_at = time

    def _take(self, time: float) -> None:
        most = 1 if is_in(self.disturbances.slow, time) else 10_000
        while self._queue and self._queue[0][0] <= time and most:
            _, _, event = heapq.heappop(self._queue)
            self._received.setdefault(event.id, time)
            self._kept.add(event, self.clock(time))
            most -= 1

    def _count(self, time: float, *, has_caught_up: bool) -> None:
        """
        Count the time for which it has listened, in true time.
        """
        total = self._totals[-1] if self._totals else 0.0
        shown = self.clock(time)
        is_able = has_caught_up and time >= self._deaf_until
        if is_able:
            # What its clock shows for the second time does not count.
            is_new = shown > self._latest_shown
            if is_new and self._heard_until >= 0 and time - self._heard_until <= _GAP:
                total += time - self._heard_until
            self._heard_until = time
        self._latest_shown = max(self._latest_shown, shown)
        self._times.append(time)
        self._totals.append(total)

    def repetitions(self) -> Iterator[str]:
        """
        Yield a sentence about each report that one process has made twice.
        """
        for subject in self._repeated:
            yield f"the report on {subject} was made twice by one process"

    def received_at(self, reports: Iterable[object]) -> float | None:
        """
        Return when it had received the last of some reports; None if it has not received one of them.
        """
        times = [self._received.get(each.event.id) for each in reports]  # type: ignore[attr-defined]
        return None if None in times else max(each for each in times if each is not None)

    def listened(self, since: float, until: float) -> float:
        """
        Return for how many seconds it has listened between two true times.
        """
        return max(0.0, self._total(until) - self._total(since))

    def _total(self, time: float) -> float:
        place = bisect_left(self._times, time)
        if place < len(self._times) and self._times[place] == time:
            return self._totals[place]
        return self._totals[place - 1] if place else 0.0
