"""
The announcement, from Airflow's task runner, that a task failed for good.

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
    dag_id_of,
    may_be_queried_in_thread,
    states_are_known_at_run_end,
    task_states,
)
from dkist_processing_core.airflow._workflow import ExportedWorkflow
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import Cause, RecipeRunFailureMessage, TaskFailed
from dkist_processing_core.identity import Attempt
from dkist_processing_core.journal.notes import SUCCEEDED, TERMINATION_REQUESTED
from dkist_processing_core.text.redaction import redact

_RUNNING = "running"


def announce(
    workflow: ExportedWorkflow, task_name: str, context: Mapping[str, Any], *, run_end_is_reported: bool
) -> RecipeRunFailureMessage | None:
    """
    Publish and return the message, and deliver this host's backlog to the bus; see `chat_ops_notification`.

    With `run_end_is_reported` Airflow calls back at the end of the run, which announces open failures.
    """
    attempt = _attempt(workflow, context)
    ti = instance_of(context)
    run_id = context.get("run_id") or getattr(ti, "run_id", None)
    log_url = getattr(ti, "log_url", None)
    message = RecipeRunFailureMessage(
        workflow_name=workflow.name,
        workflow_version=workflow.version,
        task_name=task_name,
        dag_run_id=run_id if isinstance(run_id, str) else None,
        log_url=log_url if isinstance(log_url, str) else None,
        clears=clears_of(context.get("dag_run")),
    )
    with publishing(delivers=True, asks_within=budget.ENGINE_SECONDS) as publisher:
        if attempt is None:
            publisher.publish_failure(message)
            return message
        may_wait = run_end_is_reported and states_are_known_at_run_end()
        reason = _reason_not_to(context, message, attempt, publisher, may_wait=may_wait)
        if reason is not None:
            logger.info("the failure of %s is not announced now: %s", task_name, reason)
            return None
        # Both are in one transaction: at the end of the run, this event shows that the message was sent.
        engine = reporter_of(ti, attempt, publisher)
        publisher.publish_failure(message, engine.event(TaskFailed, **failure_of(workflow, context), final=True))
    return message


def _attempt(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> Attempt | None:
    try:
        return attempt_of(workflow, context)
    except IdentityError:
        return None


def _reason_not_to(
    context: Mapping[str, Any],
    message: RecipeRunFailureMessage,
    attempt: Attempt,
    publisher: Publisher,
    *,
    may_wait: bool,
) -> str | None:
    """
    Return why a failure is not announced now, or None if it is announced.

    Either it is no failure, or it `may_wait`: the end of the run announces open failures.
    """
    if publisher.remembers(SUCCEEDED + attempt.key):
        return "its launcher saw it succeed"
    cause = cause_of(context)
    if cause is Cause.LOST and may_wait:
        # The worker or the launcher is lost. The bus may hold an end of the attempt; it is read when the run has ended.
        return "the end of the run announces it"
    if cause is not Cause.TIMEOUT and publisher.remembers(TERMINATION_REQUESTED + attempt.key):
        # A task that is marked by hand, or cleared, calls the failure callback as well.
        state = _state_by_now(context, message)
        if state is None and may_wait:
            return "Airflow does not report its state, and the end of the run announces it"
        if state not in (None, FAILED, _RUNNING):
            return f"its state in Airflow is now {state}"
    return None


def _state_by_now(context: Mapping[str, Any], message: RecipeRunFailureMessage) -> str | None:
    """Return Airflow's state of the task, or None if Airflow does not answer soon."""
    found: list[str] = []

    def query() -> None:
        dag_id = dag_id_of(context, f"{message.workflow_name}_{message.workflow_version}")
        try:
            states = task_states(context, dag_id, message.dag_run_id or "")
        except Exception as error:  # noqa: BLE001 - Airflow's client may raise anything
            logger.warning("Airflow does not report the state of %s: %s", message.task_name, redact(str(error)))
        else:
            found.append(states.get(message.task_name, FAILED))

    if may_be_queried_in_thread():
        querying = threading.Thread(target=query, name="dkist-core-query", daemon=True)
        # Airflow's client keeps retrying if its server does not answer, and would delay the end of the task.
        # If no thread can be started, proceed as if Airflow did not answer: a call here might never return.
        with contextlib.suppress(RuntimeError):
            querying.start()
            querying.join(budget.ENGINE_SECONDS)
    return found[0] if found else None
