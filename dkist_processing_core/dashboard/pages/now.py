"""
The page about the present: what runs, what is late, what failed in the last hours, and the health of the bus.

Of a time of the past it shows what followed from the reports until then. Not here: the reports until a time (past).
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dkist_processing_core.collect.questions.answers import Choice, StoredAttempt, StoredRun
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.dashboard.asked import Asked, Page
from dkist_processing_core.dashboard.drawing.columns import Columns, bar_of_tasks
from dkist_processing_core.dashboard.past import as_of
from dkist_processing_core.events import WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State
from dkist_processing_core.runs.wording.overdue import StandingAlarm, standing_alarm

HOURS = 24
"""The hours before the time of the page of which failures are shown."""
MOST_OPEN = 2000
"""The largest number of attempts without an end that are read, the oldest ones."""
_MOST_RUNS, _MOST_FAMILIES, _MOST_ATTEMPTS, _MOST_LATE = 60, 12, 6, 60
_MOST_PAST_RUNS = 100
_EARLIEST = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run that goes on."""

    stored: StoredRun
    ended: int
    """The number of its tasks that have ended."""
    tasks: int
    bar: Columns
    attempts: list[StoredAttempt]
    """Those of its attempts that are open, oldest first, cut to a few."""
    more: int
    """How many further ones are open."""


@dataclass(frozen=True, slots=True)
class Late:
    """An attempt, or a run as a whole, about which an alarm stands."""

    run: Run
    task_name: str | None
    number: int | None
    alarm: StandingAlarm


def page(asked: Asked) -> Page:
    """
    Return the page.

    Raises:
        PageError: The time of the past is in the future.
    """
    asked.check_past(asked.now, "now")
    if asked.at is None:
        values = _values(asked.questions, asked.now) | {"status": asked.site.bus_status.latest()}
        values |= {"cut_to": None, "unread": 0}
    else:
        with as_of(asked.questions, asked.at, timedelta(hours=HOURS), _MOST_PAST_RUNS) as past:
            values = _values(past.questions, asked.at)
        values |= {"status": None, "cut_to": past.runs if past.is_cut else None, "unread": past.unread}
    missed = missed_starts(asked)
    values |= {"missed": missed[-_MOST_LATE:], "missed_count": len(missed), "at": asked.at}
    return Page("Now" if asked.at is None else "Then", "now.html", values)


def _values(questions: Questions, moment: datetime) -> dict[str, object]:
    """Return the values that the page shows for a time."""
    recent = Choice(since=moment - timedelta(hours=HOURS))
    attempts = questions.open_attempts(Choice(), limit=MOST_OPEN)
    runs = questions.runs(Choice(states=(State.RUNNING,)), _MOST_RUNS)
    families = questions.recent_families(recent, _MOST_FAMILIES + 1)
    overdue = questions.overdue_runs(_MOST_LATE)
    # They may be later than the open attempts that are read.
    overdue_attempts, overdue_total = questions.overdue_attempts(_MOST_LATE)
    late = _late(overdue.runs, overdue_attempts, moment)
    shown = [each.run for each in runs] + [each.run for each in attempts] + [each.run for each in late]
    shown += [family.last.run for family in families]
    return {
        "moment": moment,
        "hours": HOURS,
        "states": questions.states(recent),
        "running_runs": questions.states(Choice(states=(State.RUNNING,))).get(State.RUNNING, 0),
        "open_attempts": questions.number_of_open_attempts(),
        "runs": _running(runs, attempts),
        "late": late[:_MOST_LATE],
        "late_count": overdue.total + overdue_total,
        "families": families[:_MOST_FAMILIES],
        "has_more_families": len(families) > _MOST_FAMILIES,
        "short_id": questions.short_ids(run.run_id for run in shown).of,
    }


def missed_starts(asked: Asked) -> list[WorkflowOverdue]:
    """Return the starts that were expected in the last hours, and reported as missed until the time of the page."""
    moment = asked.at or asked.now
    return [each for each in asked.questions.missed_starts(moment - timedelta(hours=HOURS)) if each.time <= moment]


def _running(runs: list[StoredRun], attempts: list[StoredAttempt]) -> list[RunningRun]:
    """Return the runs in the order of their beginnings, so that a report moves none of them."""
    of_run: dict[Run, list[StoredAttempt]] = defaultdict(list)
    for attempt in attempts:
        of_run[attempt.run].append(attempt)
    found = []
    for stored in sorted(runs, key=lambda each: (each.began_at or _EARLIEST, each.number)):
        ended = sum(count for state, count in stored.tasks.items() if state.is_end)
        of_it = of_run[stored.run]
        bar = bar_of_tasks(stored.tasks)
        shown = of_it[:_MOST_ATTEMPTS]
        # The number of the run itself counts also those beyond the ones that were read.
        going_on = max(len(of_it), sum(stored.tasks.get(state, 0) for state in (State.RUNNING, State.DISPATCHED)))
        found.append(RunningRun(stored, ended, bar.largest, bar, shown, going_on - len(shown)))
    return found


def _late(runs: list[StoredRun], attempts: list[StoredAttempt], moment: datetime) -> list[Late]:
    """Return what is late, the longest first."""
    found = [
        Late(each.run, each.task_name, each.number, standing_alarm(each.overdue, moment))
        for each in attempts
        if each.overdue is not None
    ]
    found += [
        Late(each.run, None, None, standing_alarm(each.overdue, moment)) for each in runs if each.overdue is not None
    ]
    return sorted(found, key=lambda each: each.alarm.since)
