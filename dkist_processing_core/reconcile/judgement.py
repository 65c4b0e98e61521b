"""
What follows from Airflow's answer about a run whose end is missing: an end to publish, or the reason for none.

Pure functions, without a clock. Not here: the answers (airflow_api), and publishing (reconciler).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from dkist_processing_core.airflow.run_end import RunEnd
from dkist_processing_core.events import (
    Event,
    Reporter,
    TaskFailed,
    TaskSampled,
    TaskStarted,
    WorkflowEnd,
    WorkflowFailed,
    WorkflowStarted,
)
from dkist_processing_core.reconcile.airflow_api import NO_STATE, EngineRun
from dkist_processing_core.runs import Alarm, RunView, State, run_view

GRACE = timedelta(seconds=60)
"""How long a callback of Airflow has for its own report, which may state another time of the end."""
ANNOUNCED_WITHIN = timedelta(days=7)
"""How long after the end of a run its failures are announced to people: as long as the bus keeps events."""
_MISSED_SAMPLES = 3
# While no sample is announced: a task may wait in a queue, or its environment may be built.
_WITHOUT_SAMPLES = timedelta(minutes=15)
# Reports that were received within a moment although their times lie apart come from the bus's archive.
_AT_ONCE, _APART = timedelta(seconds=10), timedelta(minutes=1)
# By how much the clock of another host may be behind.
_CLOCKS = timedelta(minutes=5)
# Airflow computes a duration from the same two times, rounded to microseconds.
_SAME_START = timedelta(seconds=1)
_STATES = {
    State.FINISHED: "success",
    State.FAILED: "failed",
    State.SKIPPED: "skipped",
    # The attempt that runs cannot end well any more: Airflow ends a task whose run it does not know.
    State.DISPATCHED: "failed",
    State.RUNNING: "failed",
}
_FOUND = "found by Airflow's REST API, since no callback reported it"
_BACKUP = "deleted, or lost when an older backup of Airflow's database was restored"


class Outcome(StrEnum):
    """What a round found about a run."""

    ENDED = "ended"
    """It has ended; its end was published, or would have been in a dry run."""
    RUNNING = "running"
    """Airflow still runs it."""
    RECENT = "recent"
    """It has ended so recently that a callback of Airflow may still report its end."""
    SENT = "sent"
    """This process has published its end before, and the store does not have it yet."""
    REPORTED = "reported"
    """The bus has the end of this start; that the run goes on is shown by reports that Airflow does not know about."""
    ALIVE = "alive"
    """Airflow does not know it, but it has not been silent for long enough: one of its attempts may still work."""
    FOREIGN = "foreign"
    """Airflow does not know it, and no callback of this library ever reported it: another publisher runs it."""
    UNPROVEN = "unproven"
    """Airflow does not know it, and nothing shows that this is the Airflow that ran it."""
    REFUSED = "refused"
    """Airflow did not answer the question about it, or the store cannot read the reports on it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows for one run."""

    outcome: Outcome
    end: RunEnd | None = None
    """The end to publish; None for every other outcome than `ENDED`."""


def judge_known(
    reports: Sequence[Event], found: EngineRun, states: dict[str, str], *, as_of: datetime, grace: timedelta
) -> Judgement:
    """
    Return what follows for a run that Airflow knows, and regards as over.

    Args:
        reports: The reports on the run in the store.
        found: The run as Airflow knows it.
        states: The states of its tasks in Airflow.
        as_of: The time up to which the store has all reports of the bus.
        grace: How long a callback of Airflow has for its own report.
    """
    if any(_is_of(end, found) for end in reports if isinstance(end, WorkflowEnd)):
        return Judgement(Outcome.REPORTED)
    if _time_since_end(reports, found, as_of) < grace:
        return Judgement(Outcome.RECENT)
    began, over = found.began, found.over
    seconds = None if began is None or over is None else max(0.0, (over - began).total_seconds())
    reason = None if found.succeeded else _FOUND
    return Judgement(Outcome.ENDED, RunEnd(found.succeeded, began, over, seconds, states, reason))


def _is_of(end: WorkflowEnd, found: EngineRun) -> bool:
    """Return True if an end on the bus is that of the start that Airflow knows: a cleared run has another start."""
    began = found.began
    if began is None:
        # It was ended while it waited, so no callback has reported it.
        return end.ended_at is not None and end.ended_at == found.over
    if end.ended_at is None or end.duration_seconds is None:
        # The DAG processor of Airflow 3.0 knows no times.
        return (end.ended_at or end.time) >= began
    return abs(end.ended_at - timedelta(seconds=end.duration_seconds) - began) <= _SAME_START


def _time_since_end(reports: Sequence[Event], found: EngineRun, as_of: datetime) -> timedelta:
    """Return for how long the end is known: the store's clock and Airflow's may differ, so both must show it."""
    if found.over is None:
        return as_of - _last_sign(reports)
    return min(as_of, found.answered_at or as_of) - found.over


def judge_unknown(reports: Sequence[Event], *, as_of: datetime, grace: timedelta) -> Judgement:
    """
    Return what follows for a run that Airflow does not know, if it is the Airflow that ran it.

    Args:
        reports: The reports on the run in the store.
        as_of: The time up to which the store has all reports of the bus.
        grace: How long the run must have been silent at least.
    """
    if not any(each.reported_by is Reporter.ENGINE for each in reports):
        return Judgement(Outcome.FOREIGN)
    last = _last_sign(reports)
    view = run_view(reports, received_at=last)
    if as_of - last < max(grace, _longest_silence(reports, view)):
        return Judgement(Outcome.ALIVE)
    # Nothing states when it ended.
    reason = f"{WorkflowFailed.lost} Airflow does not know this run, {_BACKUP}"
    states = {task.name: _STATES.get(task.state, NO_STATE) for task in view.tasks}
    return Judgement(Outcome.ENDED, RunEnd(succeeded=False, states=states, reason=reason))


def _last_sign(reports: Iterable[Event]) -> datetime:
    """
    Return when the last sign of life was received.

    The clock of a host does not matter, unless the reports were taken in from the bus's archive: then only their own
    times show when they were published.
    """
    signs = [(each.received_at or each.time, each.time) for each in reports if not isinstance(each, Alarm)]
    last = max(received for received, _ in signs)
    at_once = [at for received, at in signs if last - received <= _AT_ONCE]
    return last if max(at_once) - min(at_once) <= _APART else min(last, max(at_once) + _CLOCKS)


def _longest_silence(reports: Iterable[Event], view: RunView) -> timedelta:
    """Return for how long the run may be silent while it works: by the samples that its open attempts announce."""
    intervals: dict[tuple[str, int | None], float] = {}
    for each in reports:
        if isinstance(each, TaskSampled | TaskStarted):
            interval = each.interval_seconds if isinstance(each, TaskSampled) else each.sample_seconds
            key = (each.task_name, each.attempt)
            intervals[key] = max(intervals.get(key, 0.0), interval or 0.0)
    is_open = [
        (task.name, attempt.number) for task in view.tasks for attempt in task.attempts if not attempt.state.is_end
    ]
    announced = [intervals.get(key, 0.0) for key in is_open]
    limits = [timedelta(seconds=_MISSED_SAMPLES * each) if each else _WITHOUT_SAMPLES for each in announced]
    return max(limits, default=_WITHOUT_SAMPLES)


def origins_of(reports: Iterable[Event]) -> frozenset[str]:
    """Return the addresses of the Airflows in the log URLs of reports."""
    found = set()
    for each in reports:
        if isinstance(each, TaskFailed) and each.log_url:
            # A port or a bracket may be wrong.
            with suppress(ValueError):
                parts = urlsplit(each.log_url)
                found.add(f"{parts.scheme}://{parts.netloc}")
    return frozenset(found)


def start_of(reports: Iterable[Event], began: datetime | None) -> WorkflowStarted | None:
    """Return the report of the start at a time, or else of the latest start; None if there is none."""
    starts = sorted((each for each in reports if isinstance(each, WorkflowStarted)), key=lambda each: each.time)
    same = [each for each in starts if each.started_at is not None and each.started_at == began]
    return next(reversed(same or starts), None)


def clears_in(reports: Iterable[Event]) -> int:
    """Return how often the run was started again, as far as the bus knows: Airflow's REST API does not count clears."""
    starts = {each.started_at for each in reports if isinstance(each, WorkflowStarted)}
    return max(0, len(starts) - 1)
