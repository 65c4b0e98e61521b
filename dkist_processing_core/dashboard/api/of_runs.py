"""
The answers about one run, one of its attempts, and two runs of a workflow.

Not here: lists of runs (endpoints).
"""

from typing import Any

from dkist_processing_core.dashboard.analysis.comparison import Side, compare
from dkist_processing_core.dashboard.api.endpoint import Request
from dkist_processing_core.dashboard.api.parameters import number_of, text_of
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.one_run.chosen import one_run
from dkist_processing_core.dashboard.pages.compare import named_in, side
from dkist_processing_core.runs.as_json import identity_json, report_json, run_json, task_json

_NOT_FOUND = 404


def run(request: Request) -> dict[str, Any]:
    """Return the run that the address names, at its time."""
    return run_json(one_run(request.asked).view)


def attempt(request: Request) -> dict[str, Any]:
    """Return an attempt of the run that the address names, with the reports on it."""
    asked = request.asked
    task_name = text_of(asked, "task")
    number = number_of(asked, "attempt", 1) if asked.text("attempt") else None
    of_run = one_run(asked)
    attempts = [each for task in of_run.view.tasks if task.name == task_name for each in task_json(task)["attempts"]]
    found = next((each for each in attempts if each["number"] == number), None)
    if found is None:
        msg = f"the run has no attempt {number} of a task {task_name!r}, expected one of those of the run"
        raise PageError(msg, _NOT_FOUND)
    return {
        **identity_json(of_run.view.run),
        "taskName": task_name,
        "attempt": found,
        "reports": [report_json(each) for each in of_run.reports_on(task_name, number)],
    }


def comparison(request: Request) -> dict[str, Any]:
    """Return the comparison of the two runs that the address names."""
    asked = request.asked
    workflow = text_of(asked, "workflow")
    a, b = (_side(asked, workflow, each) for each in ("a", "b"))
    found = compare(a, b)
    return {
        "a": identity_json(a.view.run),
        "b": identity_json(b.view.run),
        "explanation": found.explanation,
        "tasks": found.tasks,
        "contrasts": found.contrasts,
    }


def _side(asked: Asked, workflow: str, which: str) -> Side:
    text_of(asked, which)
    found = named_in(asked, workflow, which)
    assert found is not None  # the parameter is there
    return side(asked, found.run)
