"""
Generated histories: what happens on hosts and on the bus, in the true time that no process of the history knows.

A history is drawn from a seed. It has runs with attempts that succeed, fail, hang, pause and die without a report, on
hosts whose clocks differ by up to five minutes; a bus that is down at times; hosts that are cut off from it; messages
that arrive late, twice and in another order. Not here: the watchers (watchers), and what they must and must not report
(truth).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from dkist_processing_core.events import (
    Event,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSampled,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.launcher._sample_times import SampleTimes
from tests.facts import NOON, make

BEGIN = NOON.timestamp()
LARGEST_SKEW = 300.0
SLOWEST_ARRIVAL = 1.0
"""The time in which a report reaches a bus that is up, in seconds."""
FOUND_AGAIN = 30.0
"""The time after which a publisher finds a broker again, in seconds: see `unreachable_until` of the journal."""
HORIZON = 2400.0
_QUIET_END = 900.0
Interval = tuple[float, float]


def moment(seconds: float) -> datetime:
    """
    Return a time of a history as a time of an event.
    """
    return datetime.fromtimestamp(BEGIN + seconds, UTC)


def is_in(intervals: list[Interval], time: float) -> bool:
    """
    Return whether a time is within one of the intervals.
    """
    return any(since <= time < until for since, until in intervals)


@dataclass(frozen=True, slots=True)
class Report:
    """
    A report: when it was made in true time, and when it reaches the bus.
    """

    made_at: float
    arrives_at: float
    event: Event
    is_sign: bool
    """Whether its launcher or its task has made it."""
    counts_at: float
    """When it is a sign of life: when it is made, or, from a host that alone is cut off, when it arrives."""


@dataclass(slots=True)
class Attempt:
    """
    The life of an attempt.
    """

    run_id: str
    task_name: str
    number: int
    most: int
    began_at: float
    skew: float
    interval: float | None
    limit: float | None
    reports: list[Report] = field(default_factory=list)
    closing: list[Report] = field(default_factory=list)
    """The reports that close it: its end by any reporter, the next attempt, the end of its run."""

    def close(self, report: Report) -> None:
        """
        Add a report that closes it.
        """
        self.closing.append(report)

    @property
    def closed_at(self) -> float | None:
        """
        When it was closed first.
        """
        return min((each.made_at for each in self.closing), default=None)

    @property
    def has_finished(self) -> bool:
        """
        Whether it has succeeded.
        """
        return any(isinstance(each.event, TaskFinished) for each in self.closing)

    @property
    def signs(self) -> list[Report]:
        """
        The reports of its launcher and its task, in the order in which they were made.
        """
        return [each for each in self.reports if each.is_sign]


@dataclass(slots=True)
class HistoryRun:
    """
    A run: its own reports, and its attempts.
    """

    run_id: str
    reports: list[Report] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    ended: Report | None = None


@dataclass(slots=True)
class World:
    """
    A history: its runs, and when the bus was down.
    """

    runs: list[HistoryRun] = field(default_factory=list)
    outages: list[Interval] = field(default_factory=list)
    horizon: float = HORIZON
    """When it ends."""


class DrawnWorld(World):
    """
    A history that is drawn from a seed.
    """

    def __init__(self, seed: int) -> None:
        """
        Draw it.
        """
        super().__init__()
        self.random = Random(seed)
        self.outages = self.intervals(0.5, 20.0, 400.0)
        self.runs = [self._run(f"scheduled__{number}") for number in range(self.random.randint(1, 3))]
        self.messages = sorted(self._messages(), key=lambda each: each[0])
        """When each message reaches the bus, in order."""

    def intervals(self, share: float, shortest: float, longest: float) -> list[Interval]:
        """
        Draw disturbances that do not overlap; a history has none of the kind with a probability of 1 - `share`.
        """
        found: list[Interval] = []
        time = 0.0
        while self.random.random() < share:
            since = time + self.random.uniform(20.0, 500.0)
            time = since + self.random.uniform(shortest, longest)
            if time > HORIZON - _QUIET_END:
                break
            found.append((since, time))
        return found

    # The way to the bus

    def arrival(self, made_at: float, cut_off: list[Interval]) -> float:
        """
        Draw when a message reaches the bus: after each time in which it cannot, its publisher looks again for a while.
        """
        arrives_at = made_at + self.random.uniform(0.01, SLOWEST_ARRIVAL)
        while gap := next((each for each in [*self.outages, *cut_off] if each[0] <= arrives_at < each[1]), None):
            arrives_at = gap[1] + self.random.uniform(0.0, FOUND_AGAIN - SLOWEST_ARRIVAL)
        return arrives_at

    def _report(self, made_at: float, event: Event, cut_off: list[Interval], *, is_sign: bool = True) -> Report:
        arrives_at = self.arrival(made_at, cut_off)
        is_delayed_alone = is_in(cut_off, made_at + SLOWEST_ARRIVAL) or is_in(cut_off, made_at)
        return Report(made_at, arrives_at, event, is_sign, arrives_at if is_delayed_alone else made_at)

    def _messages(self) -> Iterator[tuple[float, Event]]:
        for run in self.runs:
            for report in [*run.reports, *(each for attempt in run.attempts for each in attempt.reports)]:
                yield report.arrives_at, report.event
                if self.random.random() < 0.1:
                    yield self.arrival(report.arrives_at + self.random.expovariate(1 / 60.0), []), report.event

    # Runs and attempts

    def _run(self, run_id: str) -> HistoryRun:
        run = HistoryRun(run_id)
        began_at = self.random.uniform(0.0, 600.0)
        run.reports.append(self._of_engine(WorkflowStarted, run_id, began_at, started_at=moment(began_at)))
        time = began_at
        for number in range(self.random.randint(1, 3)):
            skew = self.random.choice([0.0, self.random.uniform(-LARGEST_SKEW, LARGEST_SKEW)])
            cut_off = self.intervals(0.15, 30.0, 300.0)
            for attempt in self._attempts(run_id, f"T{number}", time + self.random.uniform(0.0, 30.0), skew, cut_off):
                run.attempts.append(attempt)
        closed = [attempt.closed_at for attempt in run.attempts]
        last = max([time, *(each.reports[-1].made_at for each in run.attempts)])
        if all(each is not None for each in closed):
            if self.random.random() < 0.8:
                self._end(run, last + self.random.uniform(0.5, 60.0))
        elif self.random.random() < 0.3:
            # An operator marks the run as failed, although an attempt has died or hangs. By each clock, that is later
            # than the beginning of its attempts: otherwise they would be those of a run that was cleared.
            began = max(each.began_at for each in run.attempts)
            self._end(run, began + self.random.uniform(LARGEST_SKEW + 10.0, 2 * LARGEST_SKEW))
        return run

    def _end(self, run: HistoryRun, ends_at: float) -> None:
        for attempt in run.attempts:
            attempt.reports = [each for each in attempt.reports if each.made_at < ends_at]
        latest = {each.task_name: each for each in run.attempts}
        states = {name: "success" if each.has_finished else "failed" for name, each in latest.items()}
        facts = {"ended_at": moment(ends_at), "tasks": states}
        has_finished = all(each == "success" for each in states.values())
        event_class = WorkflowFinished if has_finished else WorkflowFailed
        run.ended = self._of_engine(event_class, run.run_id, ends_at, **facts)
        run.reports.append(run.ended)
        for attempt in run.attempts:
            attempt.close(run.ended)

    def _of_engine(self, event_class: type[Event], run_id: str, at: float, **facts: Any) -> Report:
        event = make(event_class, time=moment(at), reported_by="engine", run_id=run_id, **facts)
        return self._report(at, event, [], is_sign=False)

    def _attempts(
        self, run_id: str, task_name: str, began_at: float, skew: float, cut_off: list[Interval]
    ) -> Iterator[Attempt]:
        """
        Yield the attempts of a task: one that dies may be followed by another one.
        """
        most = self.random.choice([1, 1, 2])
        interval = self.random.choice([None, 10.0, 20.0, 30.0, 60.0])
        limit = self.random.choice([None, None, self.random.uniform(100.0, 700.0)])
        before: Attempt | None = None
        for number in range(1, most + 1):
            attempt = Attempt(run_id, task_name, number, most, began_at, skew, interval, limit)
            self._live(attempt, cut_off)
            if not attempt.reports:
                return
            if before is not None:
                before.close(attempt.reports[0])
            yield attempt
            if attempt.has_finished or (attempt.closed_at is None and self.random.random() < 0.5):
                return
            # The engine has noticed by itself that an attempt died.
            began_at = attempt.reports[-1].made_at + self.random.uniform(20.0, 300.0)
            before = attempt

    def _live(self, attempt: Attempt, cut_off: list[Interval]) -> None:
        """
        Draw what happens to an attempt, and its reports.
        """
        typical = attempt.limit or self.random.uniform(60.0, 900.0)
        lasts = typical * self.random.choice([0.1, 0.5, 0.95, 0.99, 0.999, 1.02, 1.3, 2.0])
        fate = self.random.choice(["finishes", "finishes", "fails", "hangs", "dies", "dies at once", "pauses"])
        stops_at = attempt.began_at + {"hangs": 1e9, "dies": lasts, "dies at once": 0.0}.get(fate, lasts)
        since = attempt.began_at + self.random.uniform(0.0, lasts)
        paused = [(since, since + self.random.uniform(20.0, 400.0))] if fate == "pauses" else []
        if paused and stops_at > since:
            stops_at += paused[0][1] - since
        for made_at, event in sorted(self._lines_of(attempt, stops_at), key=lambda each: each[0]):
            if made_at < HORIZON and not (paused and is_in(paused, made_at)):
                attempt.reports.append(self._report(made_at, event, cut_off))
        if stops_at < HORIZON and fate in ("finishes", "fails", "pauses"):
            facts: dict[str, Any] = {"duration_seconds": stops_at - attempt.began_at}
            if fate == "fails":
                facts |= {"cause": "exception", "final": attempt.number == attempt.most}
            event_class = TaskFailed if fate == "fails" else TaskFinished
            self._close(attempt, stops_at, event_class, cut_off, self.random.choice(["task", "launcher"]), facts)
        elif fate.startswith("dies") and self.random.random() < 0.3:
            lost = {"cause": "lost", "provisional": True, "final": attempt.number == attempt.most}
            at = stops_at + self.random.uniform(30.0, 600.0)
            if at < HORIZON - _QUIET_END:
                self._close(attempt, at, TaskFailed, [], "engine", lost)

    def _lines_of(self, attempt: Attempt, stops_at: float) -> Iterator[tuple[float, Event]]:
        """
        Yield the reports of a launcher, and some of its task, until it stops.
        """
        began_at = attempt.began_at
        preparing = self.random.uniform(0.1, 5.0)
        yield began_at - preparing, self._of_attempt(attempt, TaskDispatched, began_at - preparing)
        facts = {"sample_seconds": attempt.interval, "overdue_after_seconds": attempt.limit}
        yield began_at, self._of_attempt(attempt, TaskStarted, began_at, **facts)
        if self.random.random() < 0.3:
            until = min(stops_at, HORIZON)
            for number, at in enumerate(sorted(self.random.uniform(began_at, until) for _ in range(3))):
                told: dict[str, Any] = {"sequence": number, "done": number, "reported_by": "task"}
                if at < stops_at:
                    yield at, self._of_attempt(attempt, TaskProgressed, at, **told)
        if attempt.interval is None:
            return
        times = SampleTimes(attempt.interval)
        age, sequence = 0.0, 0
        while began_at + age < min(stops_at, HORIZON):
            age += 0.5
            following = times.take(age)
            if following is not None:
                # The launcher is late on a busy host.
                at = began_at + age + self.random.uniform(0.0, 1.0)
                told = {"sequence": sequence, "interval_seconds": following}
                if at < stops_at:
                    yield at, self._of_attempt(attempt, TaskSampled, at, **told)
                sequence += 1

    def _of_attempt(self, attempt: Attempt, event_class: type[Event], at: float, **facts: Any) -> Event:
        known = {
            "time": moment(at + attempt.skew),
            "reported_by": "launcher",
            "run_id": attempt.run_id,
            "attempt": attempt.number,
            "max_attempts": attempt.most,
        }
        return make(event_class, attempt.task_name, **known | facts)

    def _close(
        self,
        attempt: Attempt,
        at: float,
        event_class: type[Event],
        cut_off: list[Interval],
        reporter: str,
        facts: dict[str, Any],
    ) -> None:
        event = self._of_attempt(attempt, event_class, at, reported_by=reporter, **facts)
        report = self._report(at, event, cut_off, is_sign=reporter != "engine")
        attempt.reports.append(report)
        attempt.close(report)
