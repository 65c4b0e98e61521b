"""
The fields by which an event identifies its run or its attempt.

Not here: the classes of the events (facts).
"""

from typing import Any

from dkist_processing_core.identity import Attempt, Run


def identity_of(subject: Run | Attempt) -> dict[str, Any]:
    """Return the fields with which an event identifies its run, or its attempt."""
    run = subject if isinstance(subject, Run) else subject.run
    fields: dict[str, Any] = {
        "workflow_name": run.workflow_name,
        "workflow_version": run.workflow_version,
        "run_id": run.run_id,
        "recipe_run_id": run.recipe_run_id,
    }
    if isinstance(subject, Attempt):
        fields |= {
            "task_name": subject.task_name,
            "attempt": subject.attempt,
            "max_attempts": subject.max_attempts,
        }
    return fields
