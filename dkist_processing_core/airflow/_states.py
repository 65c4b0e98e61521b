"""
The states of a run's tasks in Airflow's own records.

The query uses the connection that Airflow gives to its process, through the interface for authors of DAGs. Not here:
the use of the states.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

from dkist_processing_core.airflow._context import instance_of

FAILED = "failed"
_NO_STATE = "no_status"
# Airflow loads this module wherever it runs a callback.
_HOME = "airflow.sdk.execution_time.task_runner"


def task_states(context: Mapping[str, Any], dag_id: str, run_id: str) -> dict[str, str]:
    """Return the state of every task of a run by name, or an empty dict if Airflow does not report them."""
    queried = instance_of(context)
    if queried is None:
        # The whole run was skipped, or its task is gone: the query needs no instance.
        queried = getattr(sys.modules.get(_HOME), "RuntimeTaskInstance", None)
    ask = getattr(queried, "get_task_states", None)
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
    Return True if this process of Airflow can decode the answer.

    The DAG processor of Airflow 3.0 and 3.1.0 does not know this request: it sends no answer, and the caller waits
    until the process is killed.
    """
    decoder = getattr(_connection(), "body_decoder", None)
    if decoder is None:
        return True
    try:
        decoder.validate_python({"type": "TaskStatesResult", "task_states": {}})
    except ValueError:
        return False
    return True


def states_are_known_at_run_end() -> bool:
    """Return True if this Airflow's DAG processor knows the states of tasks, from Airflow 3.1.1 on."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(getattr(sys.modules.get("airflow"), "__version__", "")))
    return found is None or tuple(map(int, found.groups())) >= (3, 1, 1)


def may_be_queried_in_thread() -> bool:
    """Return True if our own thread may query Airflow; before Airflow 3.2 another could get the answer."""
    connection = _connection()
    return connection is None or hasattr(connection, "_thread_lock")


def _connection() -> Any:
    return getattr(sys.modules.get(_HOME), "SUPERVISOR_COMMS", None)


def dag_id_of(context: Mapping[str, Any], default: str) -> str:
    """Return the name of the DAG of a context; `default` if the context names none."""
    found = getattr(context.get("dag"), "dag_id", None) or getattr(instance_of(context), "dag_id", None)
    return found if isinstance(found, str) else default
