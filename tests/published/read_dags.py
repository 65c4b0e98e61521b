"""
Checks and exports the workflows of a published pipeline, and writes Airflow's view of the files.

Run in an environment of pipelines. Its arguments are the file for the answer, the folder to export to, and folders of
files exported before.
"""

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from dkist_processing_core.build_utils import (
    export_dags,
    extract_workflows_from_package,
    validate_workflows,
)
from dkist_processing_core.failure_callback import chat_ops_notification


def announcements(callbacks: Any) -> list[dict[str, Any]]:
    """
    Return the values that the failure callback of this environment's library gets.
    """
    found = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    return [
        each.keywords
        for each in found
        if isinstance(each, functools.partial) and each.func is chat_ops_notification and not each.args
    ]


def seen(dag: Any) -> dict[str, Any]:
    """
    Return Airflow's view of a DAG.
    """
    return {
        "tags": sorted(dag.tags),
        "schedule": dag.schedule,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "edges": sorted([upstream, task.task_id] for task in dag.tasks for upstream in task.upstream_task_ids),
        "tasks": {
            task.task_id: {
                "queue": task.queue,
                "pool": task.pool,
                "retries": task.retries,
                "retry_delay": task.retry_delay.total_seconds(),
                "retry_exponential_backoff": task.retry_exponential_backoff,
                "owner": task.owner,
                "trigger_rule": str(task.trigger_rule),
                "depends_on_past": task.depends_on_past,
                "execution_timeout": task.execution_timeout,
                "priority_weight": task.priority_weight,
                "announcements": announcements(task.on_failure_callback),
            }
            for task in dag.tasks
        },
    }


def seen_in(folder: Path) -> dict[str, Any]:
    """
    Return Airflow's view of each DAG of a folder, by id.
    """
    bag = importlib.import_module("airflow.dag_processing.dagbag").DagBag(folder)
    assert not bag.import_errors, bag.import_errors
    return {name: seen(dag) for name, dag in bag.dags.items()}


def main() -> None:
    """
    Write the answer.
    """
    answer, folder, *earlier = (Path(argument) for argument in sys.argv[1:])
    workflows = importlib.import_module("dkist_processing_test.workflows")
    validate_workflows(workflows)
    export_dags(workflows, folder)
    found = {
        "exported": seen_in(folder),
        "loaded": {workflow.dag_name: seen(workflow.load()) for workflow in extract_workflows_from_package(workflows)},
        "earlier": [seen_in(each) for each in earlier],
    }
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
