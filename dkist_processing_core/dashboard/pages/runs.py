"""
The page with all runs: filters in the address, counts per outcome, the activity of the last day, and a sorted table.

Not here: one run (pages.run), and one workflow (pages.workflow).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.collect.questions.overview import Activity, Hour, Order
from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.addresses.times import moment_in
from dkist_processing_core.dashboard.asked import Asked, Page, PageError
from dkist_processing_core.dashboard.drawing.columns import Columns, bar_of_tasks, columns
from dkist_processing_core.events import Cause
from dkist_processing_core.runs import State

SIZE = 50
"""The number of runs in one part of the table."""
_HOURS = 24
_MOST_WORKFLOWS = 24
_STATES = (State.RUNNING, State.FAILED, State.FINISHED)
# In a column the most important is at the bottom, where its size is compared best.
_ENDS = (State.FAILED, State.FINISHED)
_ORDERS = {"last": Order.LAST_REPORT, "began": Order.BEGAN, "duration": Order.DURATION, "workflow": Order.WORKFLOW}
# In this order, a new report does not move a run.
_USUAL_ORDER = "began"
_FILTERS = ("q", "workflow", "version", "state", "cause", "recipe", "since", "until")
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the table."""

    stored: StoredRun
    bar: Columns
    seconds: float | None
    """How long it took; None if it goes on, or if that is not known."""
    why: str | None
    """Why it failed, in a few words."""


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A workflow with its activity of the last day."""

    name: str
    spark: Columns
    ended: int
    failed: int


def page(asked: Asked) -> Page:
    """Return the page."""
    questions = asked.questions
    choice = questions.latest_runs(choice_of(asked))
    order, is_descending = _order(asked)
    first = _number(asked, "first", 0, 10**9) or 0
    found = questions.run_page(
        choice, order=order, is_descending=is_descending, first=first, size=SIZE, most_failures=1
    )
    activity = questions.activity(replace(choice, states=()), asked.now, _HOURS)
    given = {name: asked.text(name) for name in _FILTERS}
    sorting = {"sort": asked.text("sort"), "direction": asked.text("direction")}

    def with_(**parameters: object) -> str:
        """Return the address of this page with other parameters, from the beginning of the list."""
        return address(asked.path, **{**given, **sorting, **parameters})

    values = {
        "now": asked.now,
        "given": given,
        "sorting": sorting,
        "is_filtered": any(given.values()),
        "is_empty": not any(questions.states(Choice()).values()) if not found.total else False,
        "text_since": choice.text_since,
        "failed_since": choice.failed_since,
        "counts": questions.states(replace(choice, states=())),
        "states": _STATES,
        "causes": list(Cause),
        "rows": [_row(stored) for stored in found.runs],
        "first": found.first,
        "size": SIZE,
        "total": found.total,
        "sort": asked.text("sort") or _USUAL_ORDER,
        "is_descending": is_descending,
        "chart": _chart(activity.hours, height=60.0),
        "ended": sum(sum(hour.ended.values()) for hour in activity.hours),
        "workflows": _workflows(activity),
        "short_id": questions.short_ids(stored.run.run_id for stored in found.runs).of,
        "with_": with_,
        "part": lambda number: with_(first=number or None),
    }
    return Page("Runs", "runs.html", values)


def choice_of(asked: Asked) -> Choice:
    """
    Return the choice that the parameters of an address make.

    Raises:
        PageError: A parameter has no such value.
    """
    state = asked.text("state")
    if state is not None and state not in _STATES:
        msg = f"found state={state!r}, expected one of {', '.join(_STATES)}"
        raise PageError(msg)
    return Choice(
        since=moment_in("since", asked.text("since"), asked.now),
        until=moment_in("until", asked.text("until"), asked.now),
        workflow=asked.text("workflow"),
        version=asked.text("version"),
        states=() if state is None else (State(state),),
        cause=asked.text("cause"),
        recipe_run_id=_number(asked, "recipe", -_LARGEST_ID, _LARGEST_ID),
        text=asked.text("q"),
    )


def _number(asked: Asked, name: str, least: int, most: int) -> int | None:
    text = asked.text(name)
    if text is None:
        return None
    digits = text.strip().removeprefix("-")
    number = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < len(str(most)) + 1 else None
    if number is None or not least <= number <= most:
        msg = f"found {name}={text[:40]!r}, expected a whole number"
        raise PageError(msg)
    return number


def _order(asked: Asked) -> tuple[Order, bool]:
    name, direction = asked.text("sort") or _USUAL_ORDER, asked.text("direction")
    if name not in _ORDERS:
        msg = f"found sort={name!r}, expected one of {', '.join(_ORDERS)}"
        raise PageError(msg)
    if direction not in (None, "up", "down"):
        msg = f"found direction={direction!r}, expected up or down"
        raise PageError(msg)
    # Names are read from A to Z, times and durations from the largest.
    return _ORDERS[name], direction == "down" or (direction is None and name != "workflow")


def _row(stored: StoredRun) -> RunRow:
    seconds = None
    if stored.ended_at is not None and stored.began_at is not None and stored.is_start_known:
        seconds = max(0.0, (stored.ended_at - stored.began_at) / timedelta(seconds=1))
    failure = next(iter(stored.failures), None)
    why = stored.reason if failure is None else f"{failure.task_name}: {failure.summary or failure.cause or 'unknown'}"
    return RunRow(stored, bar_of_tasks(stored.tasks), seconds, why if stored.state is State.FAILED else None)


def _chart(hours: tuple[Hour, ...], *, height: float = 20.0) -> Columns:
    titles = [_title(hour.began_at, hour.ended) for hour in hours]
    return columns([_in_order(hour.ended) for hour in hours], titles=titles, height=height)


def _title(began_at: datetime, ended: Mapping[State, int]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in ended.items()) or "none ended"
    return f"{began_at:%Y-%m-%d %H:%M} UTC: {counts}"


def _in_order(ended: Mapping[State, int]) -> dict[str, int]:
    return {state.value: ended.get(state, 0) for state in _ENDS}


def _workflows(activity: Activity) -> list[WorkflowRow]:
    """Return the workflows of which most runs ended, in the order of their names."""
    found = []
    for name, hours in activity.workflows.items():
        ended = sum(sum(hour.ended.values()) for hour in hours)
        failed = sum(hour.ended.get(State.FAILED, 0) for hour in hours)
        found.append(WorkflowRow(name, _chart(hours), ended, failed))
    most = sorted(found, key=lambda each: (-each.ended, each.name))[:_MOST_WORKFLOWS]
    return sorted(most, key=lambda each: each.name)
