"""
The answers about one run, one of its attempts, and two runs of a workflow.

Not here: lists of runs (endpoints).
"""

from collections.abc import Sequence
from typing import Any

from dkist_processing_core.dashboard.api.endpoint import Request
from dkist_processing_core.dashboard.api.parameters import number_of, run_in, text_of
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.comparison import compare
from dkist_processing_core.dashboard.pages.compare import side
from dkist_processing_core.events import Event, TaskEvent, TaskSampled
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import RunView, kept_reports, run_view
from dkist_processing_core.runs.as_json import identity_json, report_json, run_json, task_json

_NOT_FOUND = 404


def run(request: Request) -> dict[str, Any]:
    """Return the run that the address names, at its time."""
    return run_json(_view(request.asked, run_in(request.asked))[0])


def attempt(request: Request) -> dict[str, Any]:
    """Return an attempt of the run that the address names, with the reports on it."""
    asked = request.asked
    task_name = text_of(asked, "task")
    number = number_of(asked, "attempt", 1) if asked.text("attempt") else None
    view, reports = _view(asked, run_in(asked))
    attempts = [each for task in view.tasks if task.name == task_name for each in task_json(task)["attempts"]]
    found = next((each for each in attempts if each["number"] == number), None)
    if found is None:
        msg = f"the run has no attempt {number} of a task {task_name!r}, expected one of those of the run"
        raise PageError(msg, _NOT_FOUND)
    of_task = [each for each in reports if isinstance(each, TaskEvent) and each.task_name == task_name]
    return {
        **identity_json(view.run),
        "taskName": task_name,
        "attempt": found,
        "reports": [report_json(each) for each in of_task if each.attempt == number],
    }


def comparison(request: Request) -> dict[str, Any]:
    """Return the comparison of the two runs that the address names."""
    asked = request.asked
    a, b = (side(asked, run_in(asked, name)) for name in ("a", "b"))
    found = compare(a, b)
    return {
        "a": identity_json(a.view.run),
        "b": identity_json(b.view.run),
        "explanation": found.explanation,
        "tasks": found.tasks,
        "contrasts": found.contrasts,
    }


def _view(asked: Asked, named: Run) -> tuple[RunView, Sequence[Event]]:
    """Return a run with the reports on it; at a time of the past, without later reports and without samples."""
    stored = asked.questions.run(named)
    reports = [] if stored is None else asked.questions.reports(stored.number)
    if not reports:
        msg = f"the store has no run {named.run_id!r} of {named.workflow_name} {named.workflow_version}"
        raise PageError(msg, _NOT_FOUND)
    received_at = max(each.received_at for each in reports if each.received_at is not None)
    if asked.at is not None:
        reports = [each for each in reports if each.time <= asked.at and not isinstance(each, TaskSampled)]
    if not reports:
        msg = f"the first report on the run {named.run_id!r} is later than {asked.at}, expected a later time"
        raise PageError(msg, _NOT_FOUND)
    kept = kept_reports(reports)
    return run_view(kept, received_at=received_at), kept
