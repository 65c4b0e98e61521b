"""
The endpoints of the API that read, and the answers about many runs.

The functions ask the store as the pages do, and refuse an address by the same errors. Not here: one run (of_runs), the
bus (of_bus), and HTTP (routes).
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dkist_processing_core.collect.questions.answers import Choice, StoredAttempt, StoredRun
from dkist_processing_core.collect.questions.as_json import attempt_json, family_json, listed_run_json
from dkist_processing_core.collect.questions.overview import Order
from dkist_processing_core.dashboard.analysis import regressions
from dkist_processing_core.dashboard.analysis.versions import in_order, past_runs
from dkist_processing_core.dashboard.api import answers, more_answers, of_bus, of_runs
from dkist_processing_core.dashboard.api.answers import MOST_FAILURES, MOST_FAMILIES, MOST_LISTED
from dkist_processing_core.dashboard.api.endpoint import Endpoint, Parameter, Request
from dkist_processing_core.dashboard.api.parameters import number_of, text_of
from dkist_processing_core.dashboard.asked import PageError, no_runs_of
from dkist_processing_core.dashboard.pages.now import missed_starts
from dkist_processing_core.dashboard.pages.runs import choice_of
from dkist_processing_core.runs import State
from dkist_processing_core.runs.as_json import identity_json, report_json

_NOT_FOUND = 404
_RECENT = timedelta(hours=24)
_MOST_RUNS, _MOST_RUNS_OF_TASKS = 1000, 200
_PART = 50


def _now(request: Request) -> dict[str, Any]:
    asked, freshness = request.asked, request.freshness
    questions, running = asked.questions, Choice(states=(State.RUNNING,))
    overdue_attempts, _ = questions.overdue_attempts(MOST_LISTED)
    failures = questions.latest_failures(Choice(since=asked.now - _RECENT))
    return {
        "at": asked.now,
        "isBusReachable": freshness.is_bus_reachable,
        "completeUntil": freshness.complete_until,
        "runs": _listed(questions.runs(running, MOST_LISTED, most_failures=MOST_FAILURES)),
        "attempts": _attempts(questions.open_attempts(Choice(), limit=MOST_LISTED)),
        "overdueRuns": _listed(questions.overdue_runs(MOST_LISTED, MOST_FAILURES).runs),
        "overdueAttempts": _attempts(overdue_attempts),
        "missedStarts": [
            {**identity_json(each.run), **report_json(each)} for each in missed_starts(asked)[-MOST_LISTED:]
        ],
        "failuresSince": failures.since,
        "failures": [family_json(each) for each in questions.families(failures, MOST_FAMILIES)],
    }


def _listed(runs: Iterable[StoredRun]) -> list[dict[str, Any]]:
    return [listed_run_json(run) for run in runs]


def _attempts(attempts: Iterable[StoredAttempt]) -> list[dict[str, Any]]:
    return [attempt_json(each, with_run=True) for each in attempts]


def _runs(request: Request) -> dict[str, Any]:
    asked = request.asked
    first = number_of(asked, "first", 0, default=0)
    size = number_of(asked, "limit", 1, default=_PART, most=MOST_LISTED)
    choice = asked.questions.latest_runs(choice_of(asked))
    found = asked.questions.run_page(choice, order=Order.BEGAN, first=first, size=size, most_failures=MOST_FAILURES)
    return {
        "first": found.first,
        "total": found.total,
        "textSince": choice.text_since,
        "failedSince": choice.failed_since,
        "runs": _listed(found.runs),
    }


def _workflow(request: Request) -> dict[str, Any]:
    asked = request.asked
    name = text_of(asked, "name")
    versions = asked.questions.version_figures(name, _MOST_RUNS)
    if not versions:
        raise no_runs_of(name)
    return {
        "name": name,
        "versions": versions,
        "tasks": asked.questions.task_figures(name, _MOST_RUNS_OF_TASKS),
        "changes": regressions.changes(past_runs(in_order(asked.questions.run_durations(name, _MOST_RUNS)))),
    }


def _failures(request: Request) -> dict[str, Any]:
    asked = request.asked
    choice = asked.questions.latest_failures(replace(choice_of(asked), family=asked.text("family")))
    limit = number_of(asked, "limit", 1, default=_PART, most=MOST_LISTED)
    if choice.family is None:
        found = [family_json(each) for each in asked.questions.families(choice, limit)]
        return {"since": choice.since, "families": found, "attempts": [], "stack": None, "finishedSince": None}
    family = asked.questions.family(choice, limit)
    if family is None:
        msg = f"the store has no failure of the family {choice.family!r}, expected one of those of all failures"
        raise PageError(msg, _NOT_FOUND)
    return {
        "since": choice.since,
        "families": [family_json(family.family)],
        "attempts": _attempts(family.failures),
        "stack": family.stack,
        "finishedSince": family.finished_since,
    }


_LIMIT = Parameter(
    "limit", f"The largest number in the answer, by default {_PART} and at most {MOST_LISTED}.", is_number=True
)
_OF_RUN = (
    Parameter("workflow", "The name of the workflow.", is_required=True),
    Parameter("version", "The version of the workflow."),
    Parameter("id", "The id of the run.", is_required=True),
)
_AT = Parameter(
    "at",
    "A time of the past. The reports whose own time is not later count, whenever they arrived. Samples are left out. "
    "Progress and alarms are missing where a later report has replaced them in the store.",
)
_CHOICE = (
    Parameter("workflow", "The name of the workflow, in which * and ? stand for any characters and any character."),
    Parameter("version", "The version of the workflow."),
    Parameter("cause", "The cause of a failure."),
    Parameter("recipe", "The recipe run id.", is_number=True),
    Parameter("since", "Only what has a report since this time, or since so long ago: 90m, 24h, 7d."),
    Parameter("until", "Only what has its last report before this time."),
)
ENDPOINTS = (
    Endpoint(
        "now",
        "The runs and attempts that go on, what is late, and the failures of the last day.",
        answers.Now,
        _now,
    ),
    Endpoint(
        "runs",
        "A part of the list of runs, the one that began last first.",
        answers.Runs,
        _runs,
        (
            *_CHOICE,
            Parameter("state", "The state: running, failed or finished."),
            Parameter("q", "A text in the name of the workflow or in the id."),
            Parameter("first", "The place of the first run of the part, from 0.", is_number=True),
            _LIMIT,
        ),
    ),
    Endpoint("run", "A run with its tasks and attempts.", answers.Run, of_runs.run, (*_OF_RUN, _AT)),
    Endpoint(
        "attempt",
        "An attempt with the reports on it.",
        answers.Attempt,
        of_runs.attempt,
        (
            *_OF_RUN,
            Parameter("task", "The name of the task.", is_required=True),
            Parameter("attempt", "The number of the attempt, if it has one.", is_number=True),
            _AT,
        ),
    ),
    Endpoint(
        "workflow",
        "The figures of a workflow by version and task, and the versions that changed something.",
        more_answers.Workflow,
        _workflow,
        (Parameter("name", "The name of the workflow.", is_required=True),),
    ),
    Endpoint(
        "failures",
        "The families of failures, or one of them with its attempts.",
        answers.Failures,
        _failures,
        (*_CHOICE, Parameter("family", "The id of a family."), _LIMIT),
    ),
    Endpoint("bus", "The bus: archive, consumers, outboxes and dead letters.", more_answers.Bus, of_bus.bus),
    Endpoint(
        "compare",
        "Two runs of a workflow, task by task.",
        more_answers.Comparison,
        of_runs.comparison,
        (
            Parameter("workflow", "The name of the workflow.", is_required=True),
            Parameter("a", "The id of the first run.", is_required=True),
            Parameter("a_version", "Its version; without it, the last run of this id is meant."),
            Parameter("b", "The id of the second run.", is_required=True),
            Parameter("b_version", "Its version; without it, the last run of this id is meant."),
        ),
    ),
)
"""All endpoints that read."""
