"""
Runs, attempts, failures and usage of the store as JSON, with the terms and the spelling of the events.

Not here: a run with all its attempts (runs.as_json).
"""

from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.collect.questions.answers import Family, FirstFailure, StoredAttempt, StoredRun, Usage
from dkist_processing_core.runs.as_json import identity_json, report_json, time_json


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
        "overdue": None if attempt.overdue is None else report_json(attempt.overdue),
    }


def listed_run_json(run: StoredRun) -> dict[str, Any]:
    """Return a run of a list, with the last attempts of its tasks that have failed."""
    return {
        **identity_json(run.run),
        "state": run.state.value,
        "verdict": None if run.verdict is None else run.verdict.value,
        "reason": run.reason,
        "startedAt": time_json(run.began_at) if run.is_start_known else None,
        "startedBefore": None if run.is_start_known else time_json(run.began_at),
        "endedAt": time_json(run.ended_at),
        "lastReportAt": time_json(run.last_sign_at),
        "overdue": None if run.overdue is None else report_json(run.overdue),
        "tasks": {state.value: count for state, count in run.tasks.items()},
        "failures": [attempt_json(attempt, with_run=False) for attempt in run.failures],
    }


def family_json(family: Family) -> dict[str, Any]:
    """Return a family of failures, with the attempt that failed so most recently."""
    return {
        "family": family.family,
        "count": family.count,
        "final": family.final,
        "total": family.total,
        "firstAt": time_json(family.first_at),
        "lastAt": time_json(family.last_at),
        "firstFailure": None if family.first is None else _first_json(family.first),
        "runs": family.runs,
        "recipeRuns": family.recipe_runs,
        "workflows": dict(family.workflows),
        "tasks": family.tasks,
        "last": attempt_json(family.last, with_run=True),
    }


def _first_json(first: FirstFailure) -> dict[str, Any]:
    return {
        "at": time_json(datetime.fromtimestamp(first.at, UTC)),
        "workflowName": first.workflow_name,
        "workflowVersion": first.version,
        "taskName": first.task_name,
        "lastGoodVersion": first.last_good_version,
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return what a task or a queue has used; bytes, processors, and null for what was not measured."""
    of_task = {} if usage.task_name is None else {"workflowName": usage.workflow_name, "taskName": usage.task_name}
    return {
        **of_task,
        "queue": usage.queue,
        "attempts": usage.attempts,
        "died": usage.died,
        "outOfMemory": usage.out_of_memory,
        "memoryMedian": usage.memory_median,
        "memoryLargest": usage.memory_largest,
        "memoryLimit": usage.memory_limit,
        "cpuMean": usage.cpu_mean,
        "cpuLimit": usage.cpu_limit,
        "readBytes": usage.bytes_read,
        "writeBytes": usage.bytes_written,
        **({"enoughMemory": usage.enough_memory, "spareMemory": usage.spare_memory} if not of_task else {}),
    }
