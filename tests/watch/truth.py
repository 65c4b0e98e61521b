"""
What is true in a history, by which the reports of watchers are judged.

**False** is a report that is wrong in true time, when a watcher makes it:

* an alarm of silence, if within its limit the attempt has given a sign, or if it has been closed;
* an alarm of duration, if the attempt has not lasted for its limit, or if it has been closed;
* an alarm about a run, if within its limit anything was reported on it, if it runs an attempt, or if it has ended;
* a withdrawal, if there was no later sign, or no end within the limit.

A sign is given when it is made on its host, whether or not it has reached the bus: a bus that is down excuses no
watcher. There are two exceptions. The last second does not count, in which a report is on its way. And the signs of a
host that is cut off, while others reach the bus, are given when they arrive: that absence is what an alarm reports.

A **true absence** is the time without a sign, beyond the limit, of an attempt that is open; the time beyond its limit
of an attempt that gives signs and goes on; and the time without a report, beyond the limit, of a run that runs nothing.
It is found within 1.2 times its limit if a report with its number is published before a watcher has listened for longer
than that. How long a watcher has listened follows from its disturbances (watchers), not from what it knows of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dkist_processing_core.events import Event, TaskDispatched, TaskOverdue, TaskStarted, WorkflowOverdue
from tests.watch.watchers import STRIDE, Watcher
from tests.watch.world import SLOWEST_ARRIVAL, Attempt, HistoryRun, Report, World

IDLE_AFTER = 700.0
MISSED = 3
_LARGEST_FACTOR = 1.2


@dataclass(frozen=True, slots=True)
class Published:
    """
    A report of a watcher, with the true time at which it was made.
    """

    at: float
    event: TaskOverdue | WorkflowOverdue

    @property
    def number(self) -> int:
        """
        Its sequence number.
        """
        return self.event.sequence or 0


def _number(event: Event) -> int:
    """
    Return the number of an alarm that counts from an event.
    """
    microseconds = round(event.time.timestamp() * 1_000_000)
    return microseconds // 1000 * 2


class Truth:
    """
    The truth of a history, compared with what its watchers have published.
    """

    def __init__(self, world: World, published: list[Published]) -> None:
        """
        Store both.
        """
        self._world = world
        self._published = published
        self._runs = {run.run_id: run for run in world.runs}
        self._attempts = {
            (each.run_id, each.task_name, each.number): each for run in world.runs for each in run.attempts
        }

    # False reports

    def false_reports(self) -> Iterator[str]:
        """
        Yield a sentence about each report that is false.
        """
        for each in self._published:
            reason = self._of_attempt(each) if isinstance(each.event, TaskOverdue) else self._of_run(each)
            if reason:
                yield f"at {each.at:.1f}: {each.event.name} {each.event.subject} {each.number}: {reason}"

    def _of_attempt(self, published: Published) -> str | None:
        at, event = published.at, published.event
        assert isinstance(event, TaskOverdue)
        attempt = self._attempts[event.run_id, event.task_name, event.attempt or 0]
        if event.withdrawn:
            return self._of_withdrawal(published, attempt)
        known = at - SLOWEST_ARRIVAL
        if any(each.counts_at <= known for each in attempt.closing):
            return f"it was closed at {attempt.closed_at}"
        if event.exceeded == "duration":
            lasts, limit = at - attempt.began_at, attempt.limit or 0.0
            return None if lasts > limit == event.limit_seconds else f"it has lasted {lasts:.1f} s of {limit:.1f}"
        last = [each for each in attempt.signs if _number(each.event) == published.number]
        limit = MISSED * _announced(attempt, last[0]) if last else 0.0
        if limit != event.limit_seconds:
            return f"its limit is {limit} rather than {event.limit_seconds}"
        later = [each.counts_at for each in attempt.signs if _number(each.event) > published.number]
        signs = [each for each in later if at - limit < each <= known]
        return f"it gave signs at {signs}" if signs or last[0].made_at > at - limit else None

    def _of_withdrawal(self, published: Published, attempt: Attempt) -> str | None:
        event = published.event
        signs = [each for each in attempt.signs if each.made_at <= published.at]
        if isinstance(event, TaskOverdue) and event.exceeded == "duration":
            ends = [each for each in signs if each in attempt.closing]
            took = [each.event.duration_seconds for each in ends]  # type: ignore[attr-defined]
            return None if any(each <= event.limit_seconds for each in took) else f"it took {took}"
        return None if any(_number(each.event) > published.number for each in signs) else "there was no later sign"

    def _of_run(self, published: Published) -> str | None:
        at, event = published.at, published.event
        run = self._runs[event.run_id]
        reports = [*run.reports, *(each for attempt in run.attempts for each in attempt.reports)]
        if event.withdrawn:
            later = any(_number(each.event) > published.number and each.made_at <= at for each in reports)
            return None if later else "there was no later report"
        known = at - SLOWEST_ARRIVAL
        if run.ended is not None and run.ended.made_at <= known:
            return f"it ended at {run.ended.made_at}"
        running = [each.task_name for each in run.attempts if self._runs_at(each, known)]
        if running:
            return f"it runs {running}"
        recent = [each.counts_at for each in reports if at - IDLE_AFTER < each.counts_at <= known]
        return f"it has reports of {recent}" if recent else None

    @staticmethod
    def _runs_at(attempt: Attempt, time: float) -> bool:
        starts = [each.counts_at for each in attempt.signs[1:2]]
        is_closed = any(each.made_at <= time + SLOWEST_ARRIVAL for each in attempt.closing)
        return bool(starts) and starts[0] <= time and not is_closed

    @staticmethod
    def _runs_after(attempt: Attempt, time: float) -> bool:
        starts = [each.made_at for each in attempt.signs if isinstance(each.event, TaskStarted)]
        return bool(starts) and starts[0] <= time and not any(each.made_at <= time for each in attempt.closing)

    # Absences that were not found

    def missed(self, watcher: Watcher) -> Iterator[str]:
        """
        Yield a sentence about each absence that was not found although a watcher had the time for it.
        """
        for attempt in self._attempts.values():
            yield from self._missed_silences(watcher, attempt)
            yield from self._missed_duration(watcher, attempt)
        for run in self._runs.values():
            yield from self._missed_idle(watcher, run)

    def _is_late(
        self, watcher: Watcher, subject: str, number: int, since: float | None, until: float, limit: float, kind: str
    ) -> str | None:
        """
        Return a sentence if a watcher listened for 1.2 times a limit before the alarm with a number was published.

        The absence lasts from the receipt of a report until `until`.
        """
        if since is None:
            return None
        found = [each.at for each in self._published if each.event.subject == subject and each.number == number]
        listened = watcher.listened(since, min([until, *found]))
        if listened <= _LARGEST_FACTOR * limit + STRIDE:
            return None
        return f"{subject} {kind} {number}: {listened:.1f} s of {limit:.1f} from {since:.1f} to {until:.1f}, {found}"

    def _missed_silences(self, watcher: Watcher, attempt: Attempt) -> Iterator[str]:
        closed_at = min((each.made_at for each in attempt.closing), default=self._world.horizon)
        if attempt.interval is None:
            return
        for place, each in enumerate(attempt.signs):
            if each in attempt.closing or isinstance(each.event, TaskDispatched):
                continue
            known = attempt.signs[: place + 1]
            following = attempt.signs[place + 1].made_at if place + 1 < len(attempt.signs) else self._world.horizon
            since, until = watcher.received_at(known), min(following, closed_at)
            limit = MISSED * _announced(attempt, each)
            late = self._is_late(watcher, each.event.subject, _number(each.event), since, until, limit, "silence")
            if late:
                yield late

    def _missed_duration(self, watcher: Watcher, attempt: Attempt) -> Iterator[str]:
        if attempt.limit is None or len(attempt.signs) < 2 or attempt.signs[1].event.name != "task.started":
            return
        start = attempt.signs[1]
        until = min(self._world.horizon, attempt.closed_at or self._world.horizon)
        if attempt.interval is not None:
            # From its last sign on, it is silent rather than late.
            until = min(until, self._first_gap(attempt))
        subject = start.event.subject
        found = [_number(start.event), _number(start.event) + 2]
        since = watcher.received_at([start])
        late = [self._is_late(watcher, subject, each, since, until, attempt.limit, "duration") for each in found]
        if all(late):
            yield str(late[0])

    def _first_gap(self, attempt: Attempt) -> float:
        """
        Return when an attempt begins to be silent for longer than its limit, as a watcher can notice at the earliest.
        """
        for each, following in zip(attempt.signs, [*attempt.signs[1:], None], strict=True):
            limit = MISSED * _announced(attempt, each)
            if following is None or following.arrives_at - each.arrives_at > limit - 2 * SLOWEST_ARRIVAL:
                return each.made_at
        return self._world.horizon

    def _missed_idle(self, watcher: Watcher, run: HistoryRun) -> Iterator[str]:
        reports = sorted(
            [*run.reports, *(each for attempt in run.attempts for each in attempt.reports)],
            key=lambda each: each.made_at,
        )
        for place, each in enumerate(reports):
            following = reports[place + 1].made_at if place + 1 < len(reports) else self._world.horizon
            if run.ended is not None and run.ended.made_at <= each.made_at:
                return
            if any(self._runs_after(attempt, each.made_at) for attempt in run.attempts):
                continue
            latest = max(reports[: place + 1], key=lambda report: report.event.time)
            since = watcher.received_at(reports[: place + 1])
            subject = run.run_id
            late = self._is_late(watcher, subject, _number(latest.event), since, following, IDLE_AFTER, "idle")
            if late:
                yield late

    # Withdrawals

    def not_withdrawn(self, watcher: Watcher) -> Iterator[str]:
        """
        Yield a sentence about each alarm that a later sign should have withdrawn, of a silence or about a run.
        """
        withdrawn = {
            (each.event.subject, each.number - 1): each.event.id for each in self._published if each.event.withdrawn
        }
        for each in self._published:
            event = each.event
            if event.withdrawn or (isinstance(event, TaskOverdue) and event.exceeded != "silence"):
                continue
            if isinstance(event, TaskOverdue):
                signs = self._attempts[event.run_id, event.task_name, event.attempt or 0].signs
            else:
                run = self._runs[event.run_id]
                signs = [*run.reports, *(report for attempt in run.attempts for report in attempt.reports)]
            later = [sign for sign in signs if _number(sign.event) > each.number]
            was_received = any(watcher.received_at([sign]) is not None for sign in later)
            if was_received and (event.subject, each.number) not in withdrawn:
                yield f"{event.subject} {each.number} is not withdrawn although there were {len(later)} later signs"


def _announced(attempt: Attempt, sign: Report) -> float:
    """
    Return the interval of samples that an attempt had announced last when it gave a sign.
    """
    interval = attempt.interval or 0.0
    for each in attempt.signs[: attempt.signs.index(sign) + 1]:
        interval = getattr(each.event, "interval_seconds", None) or interval
    return interval
