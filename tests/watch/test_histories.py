"""
Generated histories: no false alarm, and every true absence is found within 1.2 times its limit.

`truth` defines both, `world` has what happens to runs and bus, `watchers` what happens to the watchers. A failure names
the seeds of the histories, each of which `History(seed)` repeats.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from dkist_processing_core.collect.questions.watched import WatchedAttempt
from dkist_processing_core.events import Event, TaskOverdue, WorkflowOverdue
from dkist_processing_core.watch import judging
from dkist_processing_core.watch.facts import Facts
from dkist_processing_core.watch.listening import Listening
from tests.watch.kept import Kept, KeptInDatabase, KeptInMemory
from tests.watch.truth import IDLE_AFTER, Published, Truth
from tests.watch.watchers import STRIDE, Disturbances, Watcher
from tests.watch.world import DrawnWorld

Make = Callable[[float], Kept]


class History:
    """
    A history with one or two watchers on one bus, from its beginning to its end.
    """

    def __init__(self, seed: int, make: Make = KeptInMemory) -> None:
        """
        Let it happen.
        """
        self._world = DrawnWorld(seed)
        self.published: list[Published] = []
        self.watchers: list[Watcher] = []
        for _ in range(self._world.random.choice([1, 2])):
            self._add_watcher(make(IDLE_AFTER))
        for watcher in self.watchers:
            watcher.offer(self._world.messages)
        for number in range(int(self._world.horizon / STRIDE) + 1):
            for watcher in self.watchers:
                watcher.look(number * STRIDE)

    def _add_watcher(self, kept: Kept) -> None:
        disturbances = Disturbances.drawn(self._world)

        def publish(time: float, event: Event) -> None:
            assert isinstance(event, TaskOverdue | WorkflowOverdue)
            self.published.append(Published(time, event))
            arrives_at = self._world.arrival(time, disturbances.unlinked)
            for watcher in self.watchers:
                watcher.offer([(arrives_at, event)])

        self.watchers.append(Watcher(self._world, disturbances, kept, publish))

    def problems(self) -> list[str]:
        """
        Return a sentence about each false report, each absence that was not found, and each missing withdrawal.
        """
        truth = Truth(self._world, self.published)
        found = list(truth.false_reports())
        for watcher in self.watchers:
            found += [*truth.missed(watcher), *truth.not_withdrawn(watcher), *watcher.repetitions()]
        return found


def problems_in(seeds: Iterable[int], make: Make = KeptInMemory) -> dict[int, list[str]]:
    """
    Return the problems of the histories that have any, by seed.
    """
    return {seed: found for seed in seeds if (found := History(seed, make).problems())}


@pytest.mark.parametrize(
    "seeds",
    [range(100), pytest.param(range(100, 2000), marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
    ids=["some", "all"],
)
def test_no_report_is_false_and_no_absence_is_missed(seeds: range) -> None:
    """Two thousand histories, of which `make test` has a hundred."""
    assert problems_in(seeds) == {}


@pytest.mark.parametrize(
    "seeds",
    [range(3), pytest.param(range(3, 100), marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
    ids=["some", "all"],
)
def test_the_store_on_sqlite_leads_to_the_same(seeds: range) -> None:
    """The fold, the spans and the queries are the real ones."""
    assert problems_in(seeds, KeptInDatabase) == {}


def test_a_watcher_in_a_database_reports_what_one_in_memory_reports() -> None:
    """The rules that the store in memory restates are those of the real one."""
    seed = next(seed for seed in range(100) if len(History(seed).published) > 3)
    in_memory, in_database = (History(seed, make).published for make in (KeptInMemory, KeptInDatabase))

    assert {each.event.id for each in in_memory} == {each.event.id for each in in_database}


def test_the_histories_have_each_kind_of_report() -> None:
    """Otherwise they would show nothing."""
    kinds: Counter[tuple[str | None, bool]] = Counter()
    for seed in range(60):
        ids = {each.event.id: each.event for each in History(seed).published}
        kinds.update((getattr(each, "exceeded", None), bool(each.withdrawn)) for each in ids.values())

    assert min(kinds[key] for key in [("silence", False), ("silence", True), ("duration", False), (None, False)]) >= 2


# Planted faults


class _WallClock(Listening):
    """
    A clock that also counts the time in which the store was not complete.
    """

    def seconds_since(self, moment: float) -> float:
        """
        Return the time by the clock of the wall.
        """
        return max(0.0, (self.until or moment) - moment)


class _ByWallClock(KeptInMemory):
    """
    A watcher that ignores when it did not listen.
    """

    def facts(self) -> Facts:
        """
        Return the facts with another clock.
        """
        facts = super().facts()
        return Facts(facts.attempts, facts.runs, _WallClock(self._spans), facts.learnt)


class _WithoutPause(KeptInMemory):
    """
    A watcher that listens as soon as the bus is there again.
    """

    def look(self, time: float, monotonic: float, *, has_caught_up: bool) -> list[Event]:
        """
        Look without regard to disturbances.
        """
        self.disturbed_at = float("-inf")
        return super().look(time, monotonic, has_caught_up=has_caught_up)


class _WithoutBacklog(KeptInMemory):
    """
    A watcher that does not know that messages wait in its queue.
    """

    def look(self, time: float, monotonic: float, *, has_caught_up: bool) -> list[Event]:
        """
        Look as if everything had arrived.
        """
        return super().look(time, monotonic, has_caught_up=has_caught_up or time > 0.0)


class _ByHostClock(KeptInMemory):
    """
    A watcher that takes the clocks of the hosts for its own.
    """

    def facts(self) -> Facts:
        """
        Return the facts with the times of the hosts.
        """
        facts = super().facts()
        return Facts([_by_host(each) for each in facts.attempts], facts.runs, facts.listening)


def _by_host(attempt: WatchedAttempt) -> WatchedAttempt:
    return replace(attempt, last_received_at=attempt.last_sign_at, clock_difference=0.0)


@pytest.mark.parametrize(
    "make", [_ByWallClock, _WithoutPause, _WithoutBacklog, _ByHostClock], ids=lambda make: make.__name__
)
def test_a_watcher_with_a_fault_is_found(make: Make) -> None:
    """The histories tell a judge that ignores one of its rules from a right one."""
    assert any(History(seed, make).problems() for seed in range(300))


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (judging, "MISSED_SAMPLES", 2.9),
        (judging, "MISSED_SAMPLES", 3.7),
        pytest.param(judging, "_ARRIVAL_SHARE", 0.5, marks=pytest.mark.soak),
        (judging, "_withdrawals", lambda _: iter(())),
    ],
)
def test_a_judge_with_another_rule_is_found(
    module: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too early, too late, or without a rule."""
    monkeypatch.setattr(module, name, value)

    assert any(History(seed).problems() for seed in range(300))
