"""
What the engine's own books say of the tasks of a run.

Asked through the connection that the engine has given its process, by the interface for authors of DAGs. Not here: what
follows from it.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

from dkist_processing_core.airflow._context import instance_of

FAILED = "failed"
_NO_STATE = "no_status"
# Loaded by the engine wherever it runs a callback.
_HOME = "airflow.sdk.execution_time.task_runner"


def task_states(context: Mapping[str, Any], dag_id: str, run_id: str) -> dict[str, str]:
    """Return the state of every task of a run, by name; nothing where the engine does not tell."""
    asked = instance_of(context)
    if asked is None:
        # The run was passed over whole, or its task is gone: what is asked needs no instance.
        asked = getattr(sys.modules.get(_HOME), "RuntimeTaskInstance", None)
    ask = getattr(asked, "get_task_states", None)
    if ask is None or not _can_be_answered():
        return {}
    found = ask(dag_id=dag_id, run_ids=[run_id])
    states = found.get(run_id) if isinstance(found, dict) else None
    if not isinstance(states, dict):
        return {}
    return {
        str(name): _NO_STATE if state is None else str(getattr(state, "value", state)) for name, state in states.items()
    }


def _can_be_answered() -> bool:
    """
    Say whether this process of the engine would understand the answer.

    The DAG processor of Airflow 3.0 and 3.1.0 knows no such question: it answers nothing, and who asks waits until the
    process is killed.
    """
    decoder = getattr(_connection(), "body_decoder", None)
    if decoder is None:
        return True
    try:
        decoder.validate_python({"type": "TaskStatesResult", "task_states": {}})
    except ValueError:
        return False
    return True


def tells_states_at_the_end() -> bool:
    """Say whether this engine's DAG processor knows the states of tasks: from Airflow 3.1.1 on."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(getattr(sys.modules.get("airflow"), "__version__", "")))
    return found is None or tuple(map(int, found.groups())) >= (3, 1, 1)


def can_be_asked_aside() -> bool:
    """Say whether a thread of ours may ask: before Airflow 3.2 another could be given the answer."""
    connection = _connection()
    return connection is None or hasattr(connection, "_thread_lock")


def _connection() -> Any:
    return getattr(sys.modules.get(_HOME), "SUPERVISOR_COMMS", None)


def dag_id_of(context: Mapping[str, Any], default: str) -> str:
    """Return the name of the DAG that a context is about."""
    found = getattr(context.get("dag"), "dag_id", None) or getattr(instance_of(context), "dag_id", None)
    return found if isinstance(found, str) else default
