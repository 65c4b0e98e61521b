"""
Histories of single actions, which Hypothesis chooses and shortens: the same truth as for the generated ones.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from dkist_processing_core.events import (
    Event,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskSampled,
    TaskStarted,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.launcher._sample_times import SampleTimes
from tests.facts import make
from tests.watch.kept import KeptInMemory
from tests.watch.truth import IDLE_AFTER, Published, Truth
from tests.watch.watchers import STRIDE, Disturbances, Watcher
from tests.watch.world import FOUND_AGAIN, Attempt, HistoryRun, Interval, Report, World, moment

_RUN = "scheduled__0"
_MOST_ATTEMPTS = 4
_lags = st.floats(0.01, 0.99)
_lasting = st.integers(6, 200).map(float)
_sides = st.integers(0, 1)


@dataclass
class Life:
    """
    An attempt that goes on, with the time of its samples and when it is paused.
    """

    attempt: Attempt
    times: SampleTimes | None
    samples: int = 0
    paused: list[Interval] = field(default_factory=list)


class Actions(RuleBasedStateMachine):
    """
    One run on hosts with any clocks, a bus, and two watchers.
    """

    def __init__(self) -> None:
        """
        The run begins; the watchers have listened for a while.
        """
        super().__init__()
        self.world = World(runs=[HistoryRun(_RUN)])
        self.run = self.world.runs[0]
        self.time = 0.0
        self.published: list[Published] = []
        self.lives: list[Life] = []
        self.messages: list[Event] = []
        self.watchers = [
            Watcher(self.world, Disturbances(), KeptInMemory(IDLE_AFTER), self._published) for _ in range(2)
        ]
        started = make(WorkflowStarted, time=moment(0.0), run_id=_RUN, reported_by="engine", started_at=moment(0.0))
        self.run.reports.append(self._report(started, 0.5, is_sign=False))
        self.wait(20, 0.5)

    def _published(self, time: float, event: Event) -> None:
        assert isinstance(event, TaskOverdue | WorkflowOverdue)
        self.published.append(Published(time, event))
        self._send(event, 0.5)

    def _send(self, event: Event, lag: float) -> float:
        """
        Let a message reach the bus, and return when; after an outage, its publisher finds the bus by and by.
        """
        arrives_at = self.time + lag
        while gap := next((each for each in self.world.outages if each[0] <= arrives_at < each[1]), None):
            arrives_at = gap[1] + lag * (FOUND_AGAIN - 1.0)
        for watcher in self.watchers:
            watcher.offer([(arrives_at, event)])
        self.messages.append(event)
        return arrives_at

    def _report(self, event: Event, lag: float, *, is_sign: bool = True) -> Report:
        return Report(self.time, self._send(event, lag), event, is_sign, self.time)

    def _of(self, attempt: Attempt, event_class: type[Event], lag: float, **facts: Any) -> Report:
        known = {
            "time": moment(self.time + attempt.skew),
            "reported_by": "launcher",
            "run_id": _RUN,
            "attempt": 1,
            "max_attempts": 1,
        }
        event = make(event_class, attempt.task_name, **known | facts)
        report = self._report(event, lag, is_sign=event.reported_by != "engine")
        attempt.reports.append(report)
        return report

    @precondition(lambda self: len(self.run.attempts) < _MOST_ATTEMPTS)
    @rule(
        interval=st.sampled_from([None, 10.0, 30.0]),
        limit=st.sampled_from([None, 100.0, 300.0]),
        skew=st.sampled_from([-300.0, 0.0, 300.0]),
        lag=_lags,
    )
    def begin(self, interval: float | None, limit: float | None, skew: float, lag: float) -> None:
        """
        An attempt begins.
        """
        name = f"T{len(self.run.attempts)}"
        attempt = Attempt(_RUN, name, 1, 1, self.time, skew, interval, limit)
        self.run.attempts.append(attempt)
        self._of(attempt, TaskDispatched, lag)
        self._of(attempt, TaskStarted, lag, sample_seconds=interval, overdue_after_seconds=limit)
        self.lives.append(Life(attempt, None if interval is None else SampleTimes(interval)))

    @rule(strides=st.integers(1, 60), lag=_lags)
    def wait(self, strides: int, lag: float) -> None:
        """
        Time passes: launchers sample, and watchers look.
        """
        for _ in range(strides):
            self.time += STRIDE
            for life in self.lives:
                self._sample(life, lag)
            for watcher in self.watchers:
                watcher.look(self.time)

    def _sample(self, life: Life, lag: float) -> None:
        following = None if life.times is None else life.times.take(self.time - life.attempt.began_at)
        if following is None or any(since <= self.time < until for since, until in life.paused):
            return
        self._of(life.attempt, TaskSampled, lag, sequence=life.samples, interval_seconds=following)
        life.samples += 1

    @precondition(lambda self: self.lives)
    @rule(place=st.integers(0, 3), seconds=_lasting)
    def pause(self, place: int, seconds: float) -> None:
        """
        A launcher is stopped for a while.
        """
        self.lives[place % len(self.lives)].paused.append((self.time, self.time + seconds))

    @precondition(lambda self: self.lives)
    @rule(place=st.integers(0, 3))
    def die(self, place: int) -> None:
        """
        A host loses its power.
        """
        self.lives.pop(place % len(self.lives))

    @precondition(lambda self: self.lives)
    @rule(place=st.integers(0, 3), reporter=st.sampled_from(["task", "launcher", "engine"]), lag=_lags)
    def end(self, place: int, reporter: str, lag: float) -> None:
        """
        An attempt ends, or its engine takes it for lost.
        """
        attempt = self.lives.pop(place % len(self.lives)).attempt
        if reporter == "engine":
            facts: dict[str, Any] = {"cause": "lost", "provisional": True, "final": True}
            attempt.close(self._of(attempt, TaskFailed, lag, reported_by=reporter, **facts))
        else:
            took = self.time - attempt.began_at
            attempt.close(self._of(attempt, TaskFinished, lag, reported_by=reporter, duration_seconds=took))

    @rule(place=st.integers(0, 1000), lag=_lags)
    def repeat(self, place: int, lag: float) -> None:
        """
        A message arrives again.
        """
        self._send(self.messages[place % len(self.messages)], lag)

    @rule(seconds=_lasting)
    def interrupt_bus(self, seconds: float) -> None:
        """
        The bus is down for a while.
        """
        self.world.outages.append((self.time, self.time + seconds))

    @rule(side=_sides, seconds=_lasting, kind=st.sampled_from(["suspended", "ended", "unlinked", "slow"]))
    def disturb(self, side: int, seconds: float, kind: str) -> None:
        """
        A watcher is stopped, has no process, is cut off from the bus, or has a backlog.
        """
        getattr(self.watchers[side].disturbances, kind).append((self.time, self.time + seconds))

    @rule(side=_sides, seconds=st.integers(-300, 300).filter(lambda seconds: abs(seconds) > 5).map(float))
    def change_clock(self, side: int, seconds: float) -> None:
        """
        The clock of a watcher is changed.
        """
        self.watchers[side].disturbances.steps.append((self.time, seconds))

    def teardown(self) -> None:
        """
        All goes well for long enough, and then the reports are compared with the truth.
        """
        self.wait(400, 0.5)
        self.world.horizon = self.time
        truth = Truth(self.world, self.published)
        assert list(truth.false_reports()) == []
        for watcher in self.watchers:
            assert [*truth.missed(watcher), *truth.not_withdrawn(watcher), *watcher.repetitions()] == []


@pytest.mark.parametrize(
    "examples", [25, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])], ids=["some", "many"]
)
def test_no_choice_of_actions_leads_to_a_false_or_a_missed_report(examples: int) -> None:
    """Beginnings, ends, deaths, pauses, repetitions, outages, and watchers that are disturbed in any way."""
    run_state_machine_as_test(Actions, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None))
