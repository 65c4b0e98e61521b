"""
Render a workflow as text: the file of a DAG, and the file of a notebook.

The same workflow gives the same bytes, so the deployed file is the one that was loaded and checked. Not here: the
operators' source (bash_operator), and Airflow.
"""

import json
import textwrap
from importlib.metadata import version
from typing import TYPE_CHECKING

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.export import bash_operator
from dkist_processing_core.export.notebook_file import EXPORTED, digest_of

if TYPE_CHECKING:
    from dkist_processing_core.workflow import Workflow

_DISTRIBUTION = "dkist-processing-core"
DAG = "dag"
"""The name of the DAG in the rendered source."""
# The same text as in earlier releases: a user who runs the cell unchanged gets an error at the missing value, and
# programs append the value at the end.
_FIRST_CELL = "recipe_run_id: int ="


def render_dag(workflow: "Workflow") -> str:
    """
    Return the source of a DAG. It needs Airflow 3 and this package's callbacks, but none of the tasks.

    Raises:
        WorkflowError: The workflow has no tasks, or no worker could install the environment of one of them.
    """
    _check_has_tasks(workflow)
    nodes, graph = workflow.nodes, workflow.graph
    name, its_version = workflow.workflow_name, workflow.workflow_version
    shared = bash_operator.render_shared(
        name, its_version, nodes[0].requirement.name, nodes=graph.nodes, edges=graph.edges
    )
    operators = "".join(
        textwrap.indent(f"tasks[{node.name!r}] = {node.operator_definition}\n", "    ") for node in nodes
    )
    edges = "".join(f"    tasks[{upstream!r}] >> tasks[{task!r}]\n" for upstream, task in graph.edges)
    return f'''\
"""
{name}, version {its_version}, as a DAG for Airflow 3.

Written by {_DISTRIBUTION} {version(_DISTRIBUTION)}: change the workflow and export it again, not this file.
"""

{bash_operator.IMPORTS}
{shared}
with DAG(
    dag_id={workflow.dag_name!r},
    schedule=None,
    catchup=False,
    tags={list(workflow.tags)!r},
    user_defined_macros={{'dkist_core': callbacks}},
    on_success_callback=callbacks.on_dag_success,
    on_failure_callback=callbacks.on_dag_failure,
) as {DAG}:
    tasks = {{}}
{operators}{edges}'''


def render_notebook(workflow: "Workflow") -> str:
    """
    Return a notebook of format 4.5: a cell for the recipe run id, then a cell for each task in dependency order.

    Raises:
        WorkflowError: The workflow has no tasks, or a notebook could not import one of them.
    """
    _check_has_tasks(workflow)
    cells = {"recipe-run-id": _FIRST_CELL}
    for number, node in enumerate(workflow.topological_sort(), 1):
        node.check_importable()
        cells[f"task-{number}"] = node.notebook_cell
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": name,
                "metadata": {},
                "outputs": [],
                "source": source.splitlines(keepends=True),
            }
            for name, source in cells.items()
        ],
        "metadata": {
            EXPORTED: digest_of(cells.values()),
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    # The layout of Jupyter itself, so that a saved notebook differs only by its changed parts.
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _check_has_tasks(workflow: "Workflow") -> None:
    if not workflow.nodes:
        msg = f"{workflow.workflow_name} cannot be exported: it has no tasks"
        raise WorkflowError(msg)
