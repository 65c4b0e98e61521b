"""
The page of a workflow: durations and failures over its versions, its slowest and most failing tasks, its latest runs.

Not here: which versions changed something (analysis.regressions).
"""

from collections.abc import Sequence
from datetime import timedelta

from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.overview import RunDuration, Spread
from dkist_processing_core.dashboard.analysis import regressions
from dkist_processing_core.dashboard.analysis.versions import in_order, past_runs, tasks_of, versions_of
from dkist_processing_core.dashboard.asked import Asked, Page, PageError, no_runs_of
from dkist_processing_core.dashboard.drawing.versions_chart import versions_chart
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State

MOST_RUNS = 1000
"""The number of the latest runs from which the versions are judged."""
MOST_RUNS_OF_TASKS = 200
"""The number of the latest runs from which the tasks are counted."""
_MOST_VERSIONS, _MOST_TASKS, _MOST_FAMILIES, _MOST_LATEST = 30, 10, 10, 20
_RECENT = timedelta(days=30)


def page(asked: Asked) -> Page:
    """
    Return the page.

    Raises:
        PageError: The address names no workflow, or one without a run.
    """
    name = asked.text("name")
    if name is None:
        raise PageError("the address names no workflow; expected /workflow?name=NAME")
    latest = asked.questions.run_durations(name, MOST_RUNS)
    if not latest:
        raise no_runs_of(name)
    runs = in_order(latest)
    versions = versions_of(runs)
    past = past_runs(runs)
    changes = regressions.changes(past)
    tasks = tasks_of(asked.questions.task_figures(name, MOST_RUNS_OF_TASKS), [version.name for version in versions])
    timed = [task for task in tasks if task.latest.durations is not None]
    failing = [task for task in tasks if task.failed]
    recent = Choice(workflow=name, since=asked.now - _RECENT)
    looked_at = asked.questions.latest_failures(recent)
    families = asked.questions.families(looked_at, _MOST_FAMILIES)
    return Page(
        f"Workflow {name}",
        "workflow.html",
        {
            "name": name,
            "runs": len(latest),
            "is_cut": len(latest) == MOST_RUNS,
            "versions": versions[-_MOST_VERSIONS:],
            "hidden_versions": max(0, len(versions) - _MOST_VERSIONS),
            "chart": versions_chart(versions[-_MOST_VERSIONS:]),
            "changes": changes,
            "examples": {change.version: _pair(runs, change.version) for change in changes},
            "can_judge": regressions.can_judge(past),
            "least_runs": regressions.LEAST_RUNS,
            "rule": regressions.RULE,
            "slowest": sorted(timed, key=lambda task: -_median(task.latest.durations))[:_MOST_TASKS],
            "failing": sorted(failing, key=lambda task: (-task.failed, -task.failure_rate))[:_MOST_TASKS],
            "runs_of_tasks": min(len(latest), MOST_RUNS_OF_TASKS),
            "families": families,
            "recent_days": _RECENT.days,
            "cut_at": None if looked_at == recent else looked_at.since,
            "latest": runs[: -_MOST_LATEST - 1 : -1],
            "short_ids": asked.questions.short_ids([run.run.run_id for run in runs[-_MOST_LATEST:]]),
        },
    )


def _pair(runs: Sequence[RunDuration], version: str) -> tuple[Run, Run] | None:
    """Return the last finished run before a version, and the last one of it; None if one of them is missing."""
    first = next(place for place, run in enumerate(runs) if run.run.workflow_version == version)
    before = [run.run for run in runs[:first] if run.state is State.FINISHED]
    after = [run.run for run in runs[first:] if run.state is State.FINISHED and run.run.workflow_version == version]
    return (before[-1], after[-1]) if before and after else None


def _median(durations: Spread | None) -> float:
    return 0.0 if durations is None else durations.median
