"""
The established failure message, as a callback of the engine.

Versioned API: exported DAGs attach it, those of the replaced release too. With the standard library alone, as
`airflow.callbacks`. Not here: what else is published of a failure (airflow).
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dkist_processing_core.events import RecipeRunFailureMessage

__all__ = ["chat_ops_notification"]

logger = logging.getLogger(__name__)


def chat_ops_notification(
    context: Mapping[str, Any], workflow_name: str, workflow_version: str, task_name: str
) -> RecipeRunFailureMessage | None:
    """
    Announce that a task failed for good: publish a `RecipeRunFailureMessage`.

    Not for a task that the launcher saw succeed on this host, nor for one that the engine has in another state by now,
    as marked a success by hand, or cleared. Never raises.

    Args:
        context: what the engine gives a callback.
        workflow_name: the name of the workflow.
        workflow_version: its version.
        task_name: the name of the task.

    Returns
    -------
    The message; None where there is none to be sent, or it could not be made.

    """
    try:
        from dkist_processing_core.airflow._announcement import announce  # noqa: PLC0415 - not for parsing

        return announce(context, workflow_name, workflow_version, task_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine's callback breaks nothing
        logger.warning("the failure of %s is not announced: %s", task_name, error)
        return None
