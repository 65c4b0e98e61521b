"""
A workflow as text, from its values: the file of a DAG.

The same workflow gives the same bytes, and what is deployed is what is loaded and checked. Not here: the operators'
source (bash_operator), and the engine.
"""

import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from dkist_processing_core import bash_operator
from dkist_processing_core.events import Graph
from dkist_processing_core.node import Node

_DISTRIBUTION = "dkist-processing-core"
DAG = "dag"
"""The name of the DAG in the rendered source."""


def render_dag(
    *,
    dag_name: str,
    workflow_name: str,
    workflow_version: str,
    tags: Sequence[str],
    nodes: Iterable[Node],
    graph: Graph,
) -> str:
    """
    Return the source of a DAG, which needs Airflow 3 and this package's callbacks, but none of the tasks.

    Raises
    ------
    WorkflowError
        where a worker could not run one of the tasks.

    """
    nodes = list(nodes)
    shared = bash_operator.render_shared(
        workflow_name, workflow_version, nodes[0].requirement.name, nodes=graph.nodes, edges=graph.edges
    )
    operators = "".join(
        textwrap.indent(f"tasks[{node.name!r}] = {node.operator_definition}\n", "    ") for node in nodes
    )
    edges = "".join(f"    tasks[{upstream!r}] >> tasks[{name!r}]\n" for upstream, name in graph.edges)
    return f'''\
"""
{workflow_name}, version {workflow_version}, as a DAG for Airflow 3.

Written by {_DISTRIBUTION} {version(_DISTRIBUTION)}: change the workflow and export it again, not this file.
"""

{bash_operator.IMPORTS}
{shared}
with DAG(
    dag_id={dag_name!r},
    schedule=None,
    catchup=False,
    tags={list(tags)!r},
    user_defined_macros={{'dkist_core': callbacks}},
    on_success_callback=callbacks.on_dag_success,
    on_failure_callback=callbacks.on_dag_failure,
) as {DAG}:
    tasks = {{}}
{operators}{edges}'''
