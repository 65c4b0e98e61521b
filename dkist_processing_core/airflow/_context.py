"""
Airflow's context of a callback, converted to this package's identities and times.

The content of the context differs between versions of Airflow and between its processes: in the DAG processor, a task
instance may have no start, or be missing. So no entry is assumed to exist. Not here: the use of these values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dkist_processing_core.errors import IdentityError
from dkist_processing_core.identity import Attempt, Run, parse_recipe_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkist_processing_core.airflow._workflow import ExportedWorkflow


def instance_of(context: Mapping[str, Any]) -> object:
    """Return the task instance under either of its names, or None if there is none."""
    return context.get("ti") or context.get("task_instance")


def run_of(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> Run:
    """
    Return the run of a context; its recipe run id is None if the context gives no usable one.

    Raises:
        IdentityError: The context does not even name the run.
    """
    return _run(
        workflow, context.get("dag_run"), context.get("run_id") or getattr(instance_of(context), "run_id", None)
    )


def run_of_instance(workflow: ExportedWorkflow, ti: object, dag_run: object) -> Run:
    """Return the run for which a template is rendered."""
    return _run(workflow, dag_run, getattr(ti, "run_id", None))


def _run(workflow: ExportedWorkflow, dag_run: object, run_id: object) -> Run:
    run_id = run_id or getattr(dag_run, "run_id", None)
    if not isinstance(run_id, str) or not run_id:
        msg = f"Airflow's context names no run of {workflow.name}: found {run_id!r}, expected its run_id"
        raise IdentityError(msg)
    conf = getattr(dag_run, "conf", None)
    given = conf.get("recipe_run_id") if isinstance(conf, dict) else None
    try:
        recipe_run_id: int | None = parse_recipe_run_id(given)
    except IdentityError:
        recipe_run_id = None
    return Run(workflow.name, workflow.version, run_id, recipe_run_id)


def attempt_of(workflow: ExportedWorkflow, context: Mapping[str, Any]) -> Attempt:
    """
    Return the attempt of a context.

    Raises:
        IdentityError: The context names no task.
    """
    ti = instance_of(context)
    name = getattr(ti, "task_id", None)
    if not isinstance(name, str) or not name:
        msg = f"Airflow's context names no task of {workflow.name}: found {name!r}, expected its task_id"
        raise IdentityError(msg)
    map_index = getattr(ti, "map_index", None)
    if isinstance(map_index, int) and map_index >= 0:
        name = f"{name}[{map_index}]"
    number = _whole(getattr(ti, "try_number", None), 1)
    max_tries = _whole(getattr(ti, "max_tries", None), number - 1)
    log_url = getattr(ti, "log_url", None)
    return Attempt(
        run_of(workflow, context),
        name,
        attempt=max(1, number),
        max_attempts=max(1, number, max_tries + 1),
        log_url=log_url if isinstance(log_url, str) else None,
    )


def clears_of(dag_run: object) -> int:
    """Return how often the run, or a task of it, was cleared."""
    return max(0, _whole(getattr(dag_run, "clear_number", None), 0))


def moment(owner: object, name: str) -> datetime | None:
    """Return one of Airflow's times in UTC, or None if Airflow does not know it."""
    found = getattr(owner, name, None)
    if not isinstance(found, datetime):
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def seconds_between(began: datetime | None, ended: datetime | None) -> float | None:
    """Return the seconds between two times, at least 0, or None if one of them is unknown."""
    return None if began is None or ended is None else max(0.0, (ended - began).total_seconds())


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
