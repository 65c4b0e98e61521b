"""
Runs and attempts of the store as JSON, with the terms and the spelling of the events.

Not here: a run with all its attempts (runs.as_json).
"""

from datetime import datetime
from typing import Any

from dkist_processing_core.collect.answers import StoredAttempt
from dkist_processing_core.events import format_time
from dkist_processing_core.identity import Run


def identity_json(run: Run) -> dict[str, Any]:
    """Return the identity of a run."""
    return {
        "workflowName": run.workflow_name,
        "workflowVersion": run.workflow_version,
        "dagRunId": run.run_id,
        "recipeRunId": run.recipe_run_id,
    }


def attempt_json(attempt: StoredAttempt, *, with_run: bool) -> dict[str, Any]:
    """Return an attempt; values that were not reported are null."""
    return {
        **(identity_json(attempt.run) if with_run else {}),
        "taskName": attempt.task_name,
        "attempt": attempt.number,
        "maxAttempts": attempt.max_attempts,
        "state": attempt.state.value,
        "dispatchedAt": time_json(attempt.dispatched_at),
        "startedAt": time_json(attempt.started_at),
        "endedAt": time_json(attempt.ended_at),
        "lastReportAt": time_json(attempt.last_sign_at),
        "durationSeconds": attempt.duration_seconds,
        "host": attempt.host,
        "done": attempt.done,
        "total": attempt.total,
        "unit": attempt.unit,
        "note": attempt.note,
        "cause": attempt.cause,
        "family": attempt.family,
        "summary": attempt.summary,
        "logUrl": attempt.log_url,
    }


def time_json(moment: datetime | None) -> str | None:
    """Return a time as in the JSON of events."""
    return None if moment is None else format_time(moment)
