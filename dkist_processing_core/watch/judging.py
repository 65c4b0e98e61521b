"""
The judge: which attempts and runs are overdue, and which alarms about them no longer hold.

Pure functions: they read no clock and no database. The time of a judgement is the last moment at which the store was
complete, so a watcher that is late judges by what it knew then. Not here: reading the facts (reading), and publishing
the decisions (overdue).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard, TypeVar

from dkist_processing_core.collect.questions.watched import WatchedAttempt
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.watch.facts import Decision, Exceeded, Facts
from dkist_processing_core.watch.listening import Listening

MISSED_SAMPLES = 3
"""The number of intervals without a report after which an attempt is overdue."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_AlarmT = TypeVar("_AlarmT", TaskOverdue, WorkflowOverdue)
# The time that the report of an end takes to reach the store: a share of the limit, within bounds in seconds.
_ARRIVAL_SHARE, _SHORTEST_ARRIVAL, _LONGEST_ARRIVAL = 0.1, 2.0, 30.0


def about_attempts(facts: Facts) -> Iterator[Decision]:
    """Yield what is to be published about attempts; it is the same until the store has the reports about it."""
    for attempt in facts.attempts:
        yield from _withdrawals(attempt)
        if attempt.is_open and facts.listening.until is not None:
            learnt = facts.learnt.get((attempt.run.workflow_name, attempt.task_name))
            yield from _alarms(attempt, facts.listening, attempt.overdue_after_seconds or learnt)


def about_runs(facts: Facts, idle_after: float) -> Iterator[Decision]:
    """
    Yield what is to be published about runs as a whole.

    Args:
        facts: The facts.
        idle_after: The time without a report after which a run that runs no attempt is overdue, in seconds.
    """
    for each in facts.runs:
        sign, alarm = _number(each.last_sign_at), each.alarm
        is_later = alarm is None or sign > (alarm.sequence or 0)
        if is_later and _stands(alarm):
            yield _withdrawal(alarm)
        listened = 0.0 if each.last_received_at is None else facts.listening.seconds_since(each.last_received_at)
        if each.is_idle and is_later and listened >= idle_after:
            yield Decision(each.run, WorkflowOverdue, _alarm(sign, idle_after, each.last_sign_at))


def _withdrawals(attempt: WatchedAttempt) -> Iterator[Decision]:
    """Yield the withdrawal of each alarm that no longer holds; the end of an engine is not a sign of life."""
    silence, duration = _latest(attempt, "silence"), _latest(attempt, "duration")
    sign, lasted = attempt.last_sign_at, attempt.duration_seconds
    if _stands(silence) and sign is not None and _number(sign) > silence.sequence:
        yield _withdrawal(silence)
    if _stands(duration) and lasted is not None and lasted <= duration.limit_seconds:
        yield _withdrawal(duration)


def _alarms(attempt: WatchedAttempt, listening: Listening, longest: float | None) -> Iterator[Decision]:
    """Yield at most one alarm about an open attempt: about its silence, or else about its duration."""
    if attempt.last_sign_at is None or attempt.last_received_at is None:
        return
    sign, interval = _number(attempt.last_sign_at), attempt.sample_interval
    silence, duration = _latest(attempt, "silence"), _latest(attempt, "duration")
    is_later = silence is None or sign > silence.sequence
    if interval and listening.seconds_since(attempt.last_received_at) >= MISSED_SAMPLES * interval:
        if is_later:
            yield _about_attempt(attempt, "silence", sign, MISSED_SAMPLES * interval)
    # If an attempt is silent, it is no news that it does not end.
    elif longest and duration is None and (is_later or not _stands(silence)):
        start = attempt.started_at
        if start is not None and _lasts_longer(attempt, start, longest, listening):
            yield _about_attempt(attempt, "duration", _number_of_duration(start, silence), longest)


def _lasts_longer(attempt: WatchedAttempt, start: float, longest: float, listening: Listening) -> bool:
    """Return True if an attempt lasts longer than a limit, by its own reports or by the listening clock."""
    last, received_at = attempt.last_sign_at or start, attempt.last_received_at or 0.0
    if last - start > longest and received_at <= (listening.until or 0.0):
        # Both times are by the clock of its host, so it was running for so long.
        return True
    arrival = min(max(_ARRIVAL_SHARE * longest, _SHORTEST_ARRIVAL), _LONGEST_ARRIVAL)
    return listening.seconds_since(start + (attempt.clock_difference or 0.0)) > longest + arrival


def _number_of_duration(start: float, silence: TaskOverdue | None) -> int:
    number = _number(start)
    # If its last sign was its start, an alarm about its silence has this number: another one would have the same id.
    is_used = silence is not None and silence.sequence // 2 == number // 2
    return number + 2 if is_used else number


def _latest(attempt: WatchedAttempt, exceeded: Exceeded) -> TaskOverdue | None:
    """Return the latest alarm of a kind, or its withdrawal."""
    return next((alarm for alarm in attempt.alarms if alarm.exceeded == exceeded), None)


def _stands(alarm: _AlarmT | None) -> TypeGuard[_AlarmT]:
    return alarm is not None and not alarm.withdrawn


def _about_attempt(attempt: WatchedAttempt, exceeded: Exceeded, sequence: int, limit: float) -> Decision:
    of_attempt = {"task_name": attempt.task_name, "attempt": attempt.number, "max_attempts": attempt.max_attempts}
    facts = of_attempt | {"exceeded": exceeded} | _alarm(sequence, limit, attempt.last_sign_at or 0.0)
    return Decision(attempt.run, TaskOverdue, facts)


def _alarm(sequence: int, limit: float, last_sign_at: float) -> dict[str, Any]:
    return {"sequence": sequence, "limit_seconds": limit, "last_sign_at": _moment(last_sign_at)}


def _withdrawal(alarm: TaskOverdue | WorkflowOverdue) -> Decision:
    """Return the withdrawal of an alarm: the same facts with the next number."""
    names = ["limit_seconds", "last_sign_at"]
    if isinstance(alarm, TaskOverdue):
        names += ["task_name", "attempt", "max_attempts", "exceeded"]
    facts = {name: getattr(alarm, name) for name in names}
    return Decision(alarm.run, type(alarm), facts | {"sequence": (alarm.sequence or 0) + 1, "withdrawn": True})


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _number(seconds: float) -> int:
    """Return the number of an alarm that counts from a time: twice its milliseconds since 1970."""
    return 2 * ((_moment(seconds) - _EPOCH) // _MILLISECOND)
