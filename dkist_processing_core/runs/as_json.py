"""
The state of a run as JSON, with the terms and the spelling of the events.

Not here: the state itself (_views).
"""

from datetime import datetime
from typing import Any

import msgspec

from dkist_processing_core.events import Event, TaskEnd, data_of, format_time
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import AttemptView, RunView, TaskView

_IDENTITY = {"workflowName", "workflowVersion", "dagRunId", "recipeRunId", "taskName", "attempt", "maxAttempts"}


def run_json(view: RunView) -> dict[str, Any]:
    """Return a run as JSON values; values that were not reported are null."""
    return {
        **identity_json(view.run),
        "state": view.state.value,
        "verdict": None if view.verdict is None else view.verdict.value,
        "reason": view.reason,
        "overdue": None if view.overdue is None else report_json(view.overdue),
        "startedAt": time_json(view.started_at) if view.is_start_known else None,
        "startedBefore": None if view.is_start_known else time_json(view.started_at),
        "endedAt": time_json(view.ended_at),
        "graph": None if view.graph is None else msgspec.to_builtins(view.graph),
        "tasks": [task_json(task) for task in view.tasks],
        "implausible": [report_json(event) for event in view.implausible],
    }


def identity_json(run: Run) -> dict[str, Any]:
    """Return the identity of a run."""
    return {
        "workflowName": run.workflow_name,
        "workflowVersion": run.workflow_version,
        "dagRunId": run.run_id,
        "recipeRunId": run.recipe_run_id,
    }


def time_json(moment: datetime | None) -> str | None:
    """Return a time as in the JSON of events."""
    return None if moment is None else format_time(moment)


def task_json(task: TaskView) -> dict[str, Any]:
    """Return a task of a run with its attempts."""
    return {
        "name": task.name,
        "state": task.state.value,
        "engineState": task.engine_state,
        "attempts": [_attempt(attempt) for attempt in task.attempts],
    }


def _attempt(attempt: AttemptView) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "state": attempt.state.value,
        "cause": attempt.cause,
        "dispatchedAt": time_json(attempt.dispatched_at),
        "startedAt": time_json(attempt.started_at),
        "endedAt": time_json(attempt.ended_at),
        "environmentSeconds": attempt.preparation_seconds,
        "durationSeconds": attempt.duration_seconds,
        "end": None if attempt.end is None else _facts(attempt.end),
        "contradictions": [report_json(end) for end in attempt.contradictions],
        "progress": None if attempt.progress is None else report_json(attempt.progress),
        "sample": None if attempt.sample is None else report_json(attempt.sample),
        "sampleSeconds": attempt.sample_seconds,
        "overdueAfterSeconds": attempt.overdue_after_seconds,
        "overdue": None if attempt.overdue is None else report_json(attempt.overdue),
        "reporters": [reporter.value for reporter in attempt.reporters],
    }


def report_json(event: Event) -> dict[str, Any]:
    """Return a report with its own facts, without those that name its subject."""
    return {"type": event.type, "time": time_json(event.time), "reportedBy": event.reported_by.value, **_facts(event)}


def _facts(event: Event | TaskEnd) -> dict[str, Any]:
    return {name: value for name, value in data_of(event).items() if name not in _IDENTITY}
