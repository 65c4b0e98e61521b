"""
`Workflow`, the author's interface to a directed acyclic graph of tasks.

Not here: its run on this host (local), its rendering as text (export.rendering), and the checks of what an author gives
(author_checks). Only `load` imports Airflow. The length comes from the docstrings: the reference for authors is
generated from them.
"""

import graphlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkist_processing_core.author_calls import author_call
from dkist_processing_core.author_checks.names import (
    dag_name,
    name_and_tags,
    tag_of,
    tags_of,
    version_of,
    workflow_name_from_details,
)
from dkist_processing_core.author_checks.near_misses import warn_of_near_misses
from dkist_processing_core.author_checks.placement import check_placement
from dkist_processing_core.author_checks.tasks import check_runnable, check_task
from dkist_processing_core.author_checks.values import text_of
from dkist_processing_core.errors import RunFailedError, WorkflowError
from dkist_processing_core.launcher.bootstrap import is_loading
from dkist_processing_core.node import Node
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase
from dkist_processing_core.text import counted

if TYPE_CHECKING:
    from dkist_processing_core.events import Graph
    from dkist_processing_core.local.outcomes import RunResult

__all__ = ["Workflow", "dag_name", "workflow_name_from_details"]

Upstreams = type[TaskBase] | Sequence[type[TaskBase]] | None


class Workflow:
    """
    A named, versioned directed acyclic graph of tasks.

    Its name has one of two forms: `{category}_{name}` from `process_category` and `process_name`, or
    `{input}_to_{output}_{category}[_{detail}]` from `input_data`, `output_data`, `category` and `detail`.

    Args:
        process_category: the kind of process.
        process_name: the name of the process.
        input_data: the kind of input data, for example `l0`.
        output_data: the kind of output data, for example `l1`.
        category: the subject of the processing, for example the name of an instrument.
        detail: a text that distinguishes the workflow from others of the same kind.
        workflow_package: the package that contains the tasks, `__package__` of the defining module; None in a script,
            whose workflow can run on this host but cannot be exported.
        workflow_version: the version of the workflow; by default `BUILD_VERSION`.
        tags: words by which Airflow's users can find the workflow.

    """

    @author_call(
        'Workflow(process_category="hello", process_name="sun")',
        name="process_category and process_name, or input_data, output_data and category",
        version="workflow_version",
        package="workflow_package",
    )
    def __init__(
        self,
        *,
        process_category: str | None = None,
        process_name: str | None = None,
        input_data: str | None = None,
        output_data: str | None = None,
        category: str | None = None,
        detail: str | None = None,
        workflow_package: str | None = None,
        workflow_version: str | None = None,
        tags: str | Iterable[str] | None = None,
    ) -> None:
        """Check and store the names of the workflow; nodes are added afterwards."""
        given = {
            "process_category": process_category,
            "process_name": process_name,
            "input_data": input_data,
            "output_data": output_data,
            "category": category,
            "detail": detail,
        }
        parts = {argument: text_of(value, argument) for argument, value in given.items()}
        self.workflow_name, tags_of_name = name_and_tags(parts)
        self.input_data, self.output_data, self.detail = parts["input_data"], parts["output_data"], parts["detail"]
        self.category = parts["category"] or parts["process_category"]
        # As in earlier releases, an empty version counts as not given.
        version = text_of(workflow_version, "workflow_version")
        source = "workflow_version" if version else "BUILD_VERSION"
        self.workflow_version = version_of(version or _build_version(), source)
        self.dag_name = dag_name(self.workflow_name, self.workflow_version)
        self.workflow_package = text_of(workflow_package, "workflow_package") or None
        own_tags = map(tag_of, (self.workflow_version, *tags_of_name))
        self.tags = tuple(dict.fromkeys((*tags_of(tags), *own_tags)))
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> list[Node]:
        """The nodes, in the order in which they were added."""
        return list(self._nodes.values())

    @author_call(
        "add_node(Fit, upstreams=[Read])",
        retries="it in the class of the task, as in `retries = 2` above its methods",
        retry_delay_seconds="it in the class of the task, as in `retry_delay_seconds = 10` above its methods",
        downstreams="upstreams at the other task, which is added later",
        queue="resource_queue",
    )
    def add_node(
        self,
        task: type[TaskBase],
        upstreams: Upstreams = None,
        resource_queue: ResourceQueue | str | None = None,
        pip_extras: Iterable[str] | None = None,
    ) -> None:
        """
        Add a task to the workflow, downstream of the tasks that it waits for.

        Upstreams must be added before the tasks that wait for them, so that no cycle is possible.

        Args:
            task: the class of the task.
            upstreams: the class or classes of the tasks that must finish first.
            resource_queue: the kind of worker that the task needs.
            pip_extras: the extras of the workflow's package that the task's environment needs.

        Raises:
            WorkflowError: The workflow would be invalid with this task; it is not changed then.
        """
        check_task(task, "add_node expects a task")
        check_runnable(task)
        given: dict[str, Any] = {"resource_queue": resource_queue, "upstreams": upstreams, "pip_extras": pip_extras}
        node = Node(self.workflow_name, self.workflow_version, self.workflow_package, task, **given)
        check_placement(node, self._nodes)
        self._nodes[node.name] = node
        if not is_loading():
            warn_of_near_misses(task)

    def topological_sort(self) -> list[Node]:
        """
        Return the nodes in dependency order; nodes that become ready together are in the order of their addition.

        Raises:
            WorkflowError: The graph has a cycle.
        """
        try:
            sorter = graphlib.TopologicalSorter({name: node.upstream_names for name, node in self._nodes.items()})
            return [self._nodes[name] for name in sorter.static_order()]
        except graphlib.CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            msg = f"{self.workflow_name} has a cycle: the upstreams are circular, {circle} (each waits for the next)"
            raise WorkflowError(msg) from None

    @property
    def graph(self) -> "Graph":
        """The nodes in dependency order, and the edges from upstream to downstream."""
        from dkist_processing_core.events import Graph  # noqa: PLC0415 - as a task does

        ordered = self.topological_sort()
        return Graph(
            nodes=tuple(node.name for node in ordered),
            edges=tuple((upstream, node.name) for node in ordered for upstream in node.upstream_names),
        )

    @author_call("run(recipe_run_id=1, max_parallel=2)", parallel="max_parallel")
    def run(
        self,
        recipe_run_id: int | str,
        *,
        max_parallel: int | None = None,
        environments: bool = False,
        check: bool = False,
    ) -> "RunResult":
        """
        Run the workflow on this host: each task in a separate process, and independent tasks in parallel.

        Failed tasks are retried as defined. After its last attempt, a failed task stops only the tasks downstream of
        it. The process of a task has the options of this interpreter that multiprocessing passes on, such as `-O` and
        `-W error`.

        Args:
            recipe_run_id: the recipe run to process.
            max_parallel: the maximum number of tasks that run at the same time; by default the number of processors.
            environments: run each task as a worker does, in an environment that holds the release of the workflow's
                package and version with the extras of its node; if false, and for version `dev`, the installed code
                is run.
            check: raise an exception if the run fails, as `subprocess.run` does. Otherwise a failed run only shows in
                the result, and a script ends with the right exit status by `sys.exit(not workflow.run(…))`.

        Returns:
            The outcome of each task, by name; its truth value is the success of the run.

        Raises:
            IdentityError: `recipe_run_id` is not an integer from 0, or decimal digits.
            KeyboardInterrupt: The user pressed Ctrl-C; the tasks are stopped then, and the end of the run is published.
                For a script that does not catch it, a shell reports the exit status 130.
            RunFailedError: The run failed, and `check` is true; the exception has the result.
            WorkflowError: The workflow has no tasks, or cannot be run from the place of its definition.
        """
        from dkist_processing_core.local.engine import run_workflow  # noqa: PLC0415 - a task's process needs none of it

        result = run_workflow(self, recipe_run_id, max_parallel=max_parallel, environments=environments)
        if check and not result:
            raise RunFailedError(result)
        return result

    @author_call('export_dag("dags")')
    def export_dag(self, path: str | Path | None = None) -> Path:
        """
        Write the workflow as a DAG for Airflow 3 into the folder `path`, by default `dags`; return the file's path.

        The file's name is `{dag_name}.py`; an existing file is replaced as a whole. It needs neither the tasks nor
        their dependencies. Each task runs in an environment that holds the release of the workflow's package and
        version, or, for version `dev`, in the launcher's environment.

        Raises:
            WorkflowError: The workflow has no tasks, a worker could not run one of them, or the file cannot be written.
        """
        return self._export("dags" if path is None else path)

    @author_call('export("export")')
    def export(self, path: str | Path | None = None) -> Path:
        """Write the workflow as `export_dag` does, by default into the folder `export`; this is the older method."""
        return self._export("export" if path is None else path)

    def _export(self, path: str | Path) -> Path:
        from dkist_processing_core.export.files import folder_of, put_files  # noqa: PLC0415 - a task's process needs none of it

        (file,) = put_files(folder_of(path), {f"{self.dag_name}.py": self.dag_source().encode()})
        return file

    @author_call('export_notebook("notebooks")')
    def export_notebook(self, path: str | Path | None = None) -> Path:
        """
        Write the workflow as a Jupyter notebook into the folder `path`, by default `notebooks`; return the file's path.

        The file's name is `{dag_name}.ipynb`. It has a cell for the recipe run id, then a cell for each task in
        dependency order. A notebook that was changed or run after its export is not overwritten.

        Raises:
            WorkflowError: The workflow has no tasks, a notebook could not import one of them, or the file cannot be
                written.
        """
        from dkist_processing_core.export.files import folder_of  # noqa: PLC0415 - as above
        from dkist_processing_core.export.notebook_file import put_notebooks  # noqa: PLC0415 - as above

        folder = folder_of("notebooks" if path is None else path)
        (file,) = put_notebooks(folder, {f"{self.dag_name}.ipynb": self.notebook_source()})
        return file

    def load(self) -> Any:
        """
        Return Airflow's DAG, created from the same source that is exported.

        The DAG can be inspected even if no worker could run its tasks, for example tasks that a test defines in a
        function.

        Raises:
            EngineMissingError: Airflow is not installed.
            WorkflowError: The workflow has no tasks, or belongs to no package.
        """
        from dkist_processing_core.export.dag_source import exec_dag_source  # noqa: PLC0415 - as above
        from dkist_processing_core.export.rendering import DAG, render_dag  # noqa: PLC0415 - as above

        return exec_dag_source(render_dag(self), self.dag_name)[DAG]

    def dag_source(self) -> str:
        """
        Return the source that `export_dag` writes to its file.

        Raises:
            WorkflowError: The workflow has no tasks, or a worker could not run one of them.
        """
        from dkist_processing_core.export.rendering import render_dag  # noqa: PLC0415 - as above

        for node in self.nodes:
            node.check_exportable()
        return render_dag(self)

    def notebook_source(self) -> str:
        """
        Return the JSON that `export_notebook` writes to its file.

        Raises:
            WorkflowError: The workflow has no tasks, or a notebook could not import one of them.
        """
        from dkist_processing_core.export.rendering import render_notebook  # noqa: PLC0415 - as above

        return render_notebook(self)

    def __repr__(self) -> str:
        """Return the workflow's name, version and size."""
        return f"<Workflow {self.workflow_name} {self.workflow_version}, {counted(len(self._nodes), 'task')}>"


def _build_version() -> str:
    from dkist_processing_core.settings.reading import read_settings  # noqa: PLC0415 - as a task does

    return read_settings().build_version
