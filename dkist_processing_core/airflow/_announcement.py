"""
The announcement, from the engine's task runner, that a task failed for good.

Not here: failures that are announced at the end of the run (_runs).
"""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from dkist_processing_core import budget
from dkist_processing_core.airflow._attempts import cause_of, failure_of
from dkist_processing_core.airflow._context import attempt_of, clears_of, instance_of
from dkist_processing_core.airflow._publishing import logger, publishing, reporter_of
from dkist_processing_core.airflow._states import (
    FAILED,
    can_be_asked_aside,
    dag_id_of,
    task_states,
    tells_states_at_the_end,
)
from dkist_processing_core.airflow.callbacks import Callbacks
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import Cause, RecipeRunFailureMessage, TaskFailed
from dkist_processing_core.identity import Attempt
from dkist_processing_core.journal.notes import SUCCEEDED, TERMINATION_REQUESTED
from dkist_processing_core.text.redaction import redact

_RUNNING = "running"
_UNKNOWN = "unknown"


def announce(
    context: Mapping[str, Any], workflow_name: str, workflow_version: str, task_name: str
) -> RecipeRunFailureMessage | None:
    """Publish and return the message, and deliver this host's backlog to the bus; see `chat_ops_notification`."""
    callbacks = Callbacks(workflow_name=workflow_name, workflow_version=workflow_version, nodes=(), edges=())
    attempt = _attempt(callbacks, context)
    ti = instance_of(context)
    run_id = context.get("run_id") or getattr(ti, "run_id", None)
    log_url = getattr(ti, "log_url", None)
    message = RecipeRunFailureMessage(
        workflow_name=workflow_name,
        workflow_version=workflow_version,
        task_name=task_name,
        dag_run_id=run_id if isinstance(run_id, str) else None,
        log_url=log_url if isinstance(log_url, str) else None,
        clears=clears_of(context.get("dag_run")),
    )
    with publishing(delivers=True, asks_within=budget.ENGINE_SECONDS) as publisher:
        reason = _reason_not_to(context, message, attempt, publisher)
        if reason is not None:
            logger.info("the failure of %s is not announced now: %s", task_name, reason)
            return None
        # In one transaction: at the end of the run, this event shows that the message was sent.
        if attempt is None:
            publisher.publish_failure(message)
        else:
            engine = reporter_of(ti, attempt, publisher)
            publisher.publish_failure(message, engine.event(TaskFailed, **failure_of(callbacks, context), final=True))
    return message


def _attempt(callbacks: Callbacks, context: Mapping[str, Any]) -> Attempt | None:
    try:
        return attempt_of(callbacks, context)
    except IdentityError:
        return None


def _reason_not_to(
    context: Mapping[str, Any], message: RecipeRunFailureMessage, attempt: Attempt | None, publisher: Publisher
) -> str | None:
    """Return why a failure is not announced now (it is none, or the end of the run announces it), else None."""
    if attempt is None:
        return None
    if publisher.remembers(SUCCEEDED + attempt.key):
        return "its launcher saw it succeed"
    cause = cause_of(context)
    if cause is Cause.LOST and _has_run_callback(context):
        # The worker or the launcher is lost. The bus may hold an end of the attempt; it is read when the run has ended.
        return "the end of the run tells"
    if cause is not Cause.TIMEOUT and publisher.remembers(TERMINATION_REQUESTED + attempt.key):
        # A task that is marked by hand, or cleared, calls the failure callback as well.
        state = _state_by_now(context, message)
        if state not in (FAILED, _RUNNING):
            return f"to the engine it is {state} by now"
    return None


def _has_run_callback(context: Mapping[str, Any]) -> bool:
    """Return True if the end of the run settles open failures; it does not for DAG files of other releases."""
    if not tells_states_at_the_end():
        return False
    found = getattr(context.get("dag"), "on_failure_callback", None)
    attached = found if isinstance(found, list | tuple) else [found]
    return any(isinstance(getattr(each, "__self__", None), Callbacks) for each in attached)


def _state_by_now(context: Mapping[str, Any], message: RecipeRunFailureMessage) -> str:
    """Return the engine's state of the task, or that it is unknown if the engine does not answer soon."""
    found: list[str] = []

    def ask() -> None:
        dag_id = dag_id_of(context, f"{message.workflow_name}_{message.workflow_version}")
        try:
            states = task_states(context, dag_id, message.dag_run_id or "")
        except Exception as error:  # noqa: BLE001 - whatever the engine's client raises
            logger.warning("the engine does not report the state of %s: %s", message.task_name, redact(str(error)))
        else:
            found.append(states.get(message.task_name, FAILED))

    if can_be_asked_aside():
        asking = threading.Thread(target=ask, name="dkist-core-asking", daemon=True)
        # The engine's client keeps retrying if its server does not answer, and would delay the end of the task.
        # If no thread can be started, proceed as if the engine did not answer: a call here might never return.
        with contextlib.suppress(RuntimeError):
            asking.start()
            asking.join(budget.ENGINE_SECONDS)
    if found:
        return found[0]
    return _UNKNOWN if _has_run_callback(context) else FAILED
