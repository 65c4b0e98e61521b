"""
Announcing that a task failed for good, from the engine's task runner.

Not here: the failures that are announced at the end of the run (_runs).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.airflow._attempts import was_told_to_end
from dkist_processing_core.airflow._context import attempt_of, instance_of
from dkist_processing_core.airflow._publishing import logger, publishing
from dkist_processing_core.airflow._states import FAILED, dag_id_of, task_states
from dkist_processing_core.airflow.callbacks import Callbacks
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import RecipeRunFailureMessage, Reporter, TaskFinished, identity_of
from dkist_processing_core.lifecycle import never_breaking

_RUNNING = "running"


def announce(
    context: Mapping[str, Any], workflow_name: str, workflow_version: str, task_name: str
) -> RecipeRunFailureMessage | None:
    """Publish the message, and take what else waits on this host to the bus; see `chat_ops_notification`."""
    ti = instance_of(context)
    run_id = context.get("run_id") or getattr(ti, "run_id", None)
    log_url = getattr(ti, "log_url", None)
    message = RecipeRunFailureMessage(
        workflow_name=workflow_name,
        workflow_version=workflow_version,
        task_name=task_name,
        dag_run_id=run_id if isinstance(run_id, str) else None,
        log_url=log_url if isinstance(log_url, str) else None,
    )
    state = _state_by_now(context, message)
    with publishing(delivers=True) as publisher:
        if state not in (FAILED, _RUNNING):
            logger.info("the failure of %s is not announced: to the engine it is %s by now", task_name, state)
            return None
        succeeded = _success(context, message)
        if succeeded is not None and publisher.remembers(succeeded):
            logger.info("the failure of %s is not announced: its launcher saw it succeed", task_name)
            return None
        publisher.publish_failure(message)
    return message


def _state_by_now(context: Mapping[str, Any], message: RecipeRunFailureMessage) -> str:
    """
    Return the state that the engine has for the task; what runs is about to be called failed.

    It is asked only where somebody may have changed it meanwhile: what was told to end by hand, or cleared, calls its
    failure callback too.
    """
    if message.dag_run_id is None or not was_told_to_end(context.get("exception")):
        return FAILED
    with never_breaking("the failure is announced without asking the engine"):
        dag_id = dag_id_of(context, f"{message.workflow_name}_{message.workflow_version}")
        return task_states(context, dag_id, message.dag_run_id).get(message.task_name, FAILED)
    return FAILED


def _success(context: Mapping[str, Any], message: RecipeRunFailureMessage) -> TaskFinished | None:
    """Return what the launcher would have said of this attempt, had it seen it succeed."""
    named = Callbacks(
        workflow_name=message.workflow_name, workflow_version=message.workflow_version, nodes=(), edges=()
    )
    try:
        attempt = attempt_of(named, context)
    except IdentityError:
        return None
    return TaskFinished(time=datetime.now(UTC), reported_by=Reporter.LAUNCHER, **identity_of(attempt))
