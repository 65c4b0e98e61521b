"""
The page about an attempt: how it ended and why, where it was, what it used, and when others failed alike.

Not here: the run (pages.run), and the texts of the facts (runs.wording).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from dkist_processing_core.collect.questions.answers import Choice, Family, StoredAttempt
from dkist_processing_core.dashboard.addresses.links import attempt_address, run_address
from dkist_processing_core.dashboard.addresses.outside_links import followable, log_link, trace_id_of, trace_link
from dkist_processing_core.dashboard.asked import Asked, Page, PageError
from dkist_processing_core.dashboard.drawing import plot
from dkist_processing_core.dashboard.one_run.chosen import OneRun, one_run
from dkist_processing_core.dashboard.one_run.rows import disputes_of, text_of
from dkist_processing_core.events import Event, TaskDispatched, TaskFailed, TaskStarted
from dkist_processing_core.identity import Attempt
from dkist_processing_core.runs import AttemptView, TaskView
from dkist_processing_core.runs.moments import Moments, Part
from dkist_processing_core.runs.wording.causes import meaning_of
from dkist_processing_core.runs.wording.last_place import last_place
from dkist_processing_core.runs.wording.overdue import standing_alarm
from dkist_processing_core.runs.wording.stack import traced
from dkist_processing_core.runs.wording.usage import used

_MOST_EARLIER = 10
_MOST_ATTEMPT_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt ran, as far as its reports state it."""

    host: str | None
    pid: int | None
    queue: str | None
    worker: str | None
    environment: str | None


def page(asked: Asked) -> Page:
    """
    Return the page.

    The address names the run as that of its page does, the task by `task`, and the attempt by its number `attempt`,
    which is left out for a call by hand and for the last attempt.

    Raises:
        PageError: The address names no attempt of a run of the store.
    """
    one = one_run(asked)
    view, run = one.view, one.view.run
    task, attempt = _named(asked, one)
    reports = one.reports_on(task.name, attempt.number)
    end = attempt.end
    failure = end if isinstance(end, TaskFailed) else None
    moments = Moments(view, one.until)
    seconds = moments.duration(attempt)
    identity = Attempt(run, task.name, attempt.number or 1, attempt.number or 1)
    of_past = {} if asked.at is None else {"at": asked.query["at"]}
    resources = end.resources if end is not None else None if attempt.sample is None else attempt.sample.resources
    trace_id = trace_id_of(run, one.whole.traceparent)
    short_id = asked.questions.short_ids([run.run_id]).of(run.run_id)
    family, alike = _alike(asked, failure)
    values: dict[str, object] = {
        "run": run,
        "short_id": short_id,
        "task": task,
        "attempt": attempt,
        "until": one.until,
        "at": asked.at,
        "present_link": attempt_address(run, task.name, attempt.number),
        "run_link": run_address(run, **of_past),
        "seconds": seconds,
        "spans": {each.part: (each.end - each.begin).total_seconds() for each in moments.stretches(task, attempt)},
        "parts_of_attempt": Part,
        "text": text_of(attempt),
        "disputes": list(disputes_of(task, attempt)),
        "alarm": None if attempt.overdue is None else standing_alarm(attempt.overdue, one.until),
        "failure": failure,
        "meaning": None if attempt.cause is None else meaning_of(attempt.cause),
        "exceptions": traced(failure.stack) if failure is not None and failure.stack else [],
        "threads": _threads(failure),
        "last_place": None if failure is None else last_place(failure),
        "place": _place(reports),
        "used": [] if resources is None else list(used(resources, seconds)),
        "plot": plot.plot_of(end.profile) if end is not None and end.profile else None,
        "plot_size": (plot.WIDTH, plot.HEIGHT),
        "tries": [
            (other, attempt_address(run, task.name, other.number, **of_past), moments.duration(other))
            for other in task.attempts
        ],
        "trace_id": trace_id,
        "trace_link": trace_link(asked.site, trace_id, identity),
        "log_link": followable(None if failure is None else failure.log_url) or log_link(asked.site, identity),
        "family": family,
        "alike": alike,
        "reporters": ", ".join(attempt.reporters),
    }
    number = "call by hand" if attempt.number is None else f"attempt {attempt.number}"
    return Page(f"{task.name}, {number}", "attempt.html", values)


def _named(asked: Asked, one: OneRun) -> tuple[TaskView, AttemptView]:
    name, number = asked.text("task"), asked.text("attempt")
    if name is None:
        raise PageError("task is missing in the address; expected the name of a task of the run")
    task = next((each for each in one.view.tasks if each.name == name), None)
    if task is None or not task.attempts:
        raise PageError(f"the run has no attempt of a task {name}; expected a task of its timeline", 404)
    if number is None:
        return task, task.attempts[-1]
    is_number = number.isascii() and number.isdecimal() and len(number) <= _MOST_ATTEMPT_DIGITS
    found = [each for each in task.attempts if is_number and each.number == int(number)]
    if not found:
        known = ", ".join(str(each.number) for each in task.attempts)
        raise PageError(f"task {name} has no attempt {number}; expected one of {known}", 404)
    return task, found[0]


def _place(reports: Sequence[Event]) -> Place:
    started = [report for report in reports if isinstance(report, TaskStarted)]
    dispatched = [report for report in reports if isinstance(report, TaskDispatched)]
    return Place(
        host=next((each.host for each in started if each.host is not None), None),
        pid=next((each.pid for each in started if each.pid is not None), None),
        queue=next((each.queue for each in dispatched if each.queue is not None), None),
        worker=next((each.worker for each in dispatched if each.worker is not None), None),
        environment=next((each.environment for each in started if each.environment is not None), None),
    )


def _threads(failure: TaskFailed | None) -> list[tuple[str, list[str]]]:
    """Return the last stacks of the threads of a task: the title and the frames of each."""
    return list(_stacks(failure.last_stack)) if failure is not None and failure.last_stack else []


def _stacks(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in text.split("\n\n"):
        title, *frames = part.splitlines() or [""]
        if title:
            yield title, [frame.strip() for frame in frames if frame.strip()]


def _alike(asked: Asked, failure: TaskFailed | None) -> tuple[Family | None, Sequence[StoredAttempt]]:
    """
    Return the family of a failure, and the failures of it, the latest first; None for any other attempt.

    For a time of the past there are only the failures until then: the family as a whole is known of the present alone.
    """
    if failure is None:
        return None, ()
    choice = Choice(family=failure.family)
    if asked.at is not None:
        until = asked.at + timedelta(microseconds=1)
        return None, asked.questions.failures(replace(choice, until=until), _MOST_EARLIER)
    known = asked.questions.families(asked.questions.latest_failures(choice), 1)
    return next(iter(known), None), asked.questions.failures(choice, _MOST_EARLIER)
