"""
A task's place in a workflow, and the forms in which it is exported.

Not here: the consistency of the edges (workflow) and how a node runs (local, launcher).
"""

import keyword
import shlex
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from dkist_processing_core.author_checks.tasks import extras_of, queue_of, upstreams_of
from dkist_processing_core.environments import Requirement
from dkist_processing_core.errors import EnvironmentRequestError, WorkflowError
from dkist_processing_core.export import bash_operator
from dkist_processing_core.export.dag_source import exec_dag_source
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase
from dkist_processing_core.text import show

FROZEN = "frozen"
"""The extra by which a released pipeline pins its tested dependencies; a pipeline without it is installed as well."""


@dataclass(frozen=True, slots=True)
class Node:
    """
    A task with its upstreams, queue and extras.

    `Workflow.add_node` creates it, and `Workflow.nodes` lists it. Upstreams and extras may be given as one value, as
    several or as none. The queue may be given by its name.

    Raises:
        WorkflowError: A value is not a valid queue, upstream or extra.
    """

    workflow_name: str
    """The name of the workflow."""
    workflow_version: str
    """The version of the workflow."""
    workflow_package: str | None
    """The package that contains the task; None for the workflow of a script."""
    task: type[TaskBase]
    """The class of the task."""
    resource_queue: ResourceQueue = ResourceQueue.DEFAULT
    """The kind of worker that the task needs."""
    upstreams: tuple[type[TaskBase], ...] = ()
    """The classes of the tasks that must finish first."""
    pip_extras: tuple[str, ...] = ()
    """The extras of the package that the task's environment needs, in addition to `frozen`."""

    def __post_init__(self) -> None:
        """Convert the given values to one form, and keep no object that the caller may still change."""
        for name, form in (("resource_queue", queue_of), ("upstreams", upstreams_of), ("pip_extras", extras_of)):
            object.__setattr__(self, name, form(self.task, getattr(self, name)))

    @property
    def name(self) -> str:
        """The name of the task, which identifies the node in its workflow."""
        return self.task.__name__

    @property
    def upstream_names(self) -> tuple[str, ...]:
        """The names of the tasks that this one waits for."""
        return tuple(upstream.__name__ for upstream in self.upstreams)

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        """The edges that end at this node, each as the names of upstream and downstream."""
        return [(upstream, self.name) for upstream in self.upstream_names]

    @property
    def pool(self) -> str:
        """The name of Airflow's pool in which the task takes a slot."""
        return f"{self.resource_queue.value}_pool"

    @property
    def overdue_after_seconds(self) -> float | None:
        """The duration after which an attempt of the task counts as overdue, in seconds; None for no limit."""
        limit = self.task.overdue_after_seconds
        return None if limit is None else _plain(limit)

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras that the task's environment is installed with."""
        return tuple(dict.fromkeys((FROZEN, *self.pip_extras)))

    @property
    def requirement(self) -> Requirement:
        """
        The release and extras that the task's environment holds.

        Raises:
            WorkflowError: No environment can hold the task's package and extras.
        """
        if not self.workflow_package:
            self._refuse(
                "its workflow names no package, and a worker can run only the tasks of an installed "
                "package; define the "
                "workflow with workflow_package=__package__, which is None in a script"
            )
        try:
            return Requirement.of(self.workflow_package, self.workflow_version, self.extras)
        except EnvironmentRequestError as error:
            self._refuse(
                f"no worker could install version {self.workflow_version!r} of workflow_package "
                f"{show(self.workflow_package)}: {error}",
                error,
            )

    def check_exportable(self) -> None:
        """
        Check that a worker can install the task's environment and find the task in it.

        Raises:
            WorkflowError: A worker cannot do so.
        """
        _ = self.requirement
        self.check_importable()

    def check_importable(self) -> None:
        """
        Check that another process can import the task.

        Raises:
            WorkflowError: Another process cannot import it.
        """
        module = self.task.__module__
        if module == "__main__" or getattr(sys.modules.get(module), self.name, None) is not self.task:
            self._refuse(
                "another process imports a task by the name of its module and its class, and "
                f"{module}.{self.name} is not this class"
            )
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in module.split(".")):
            self._refuse(f"its module {module!r} cannot be named by an import statement; rename the file")
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            self._refuse(f"{self.name!r} is not a valid name of a class")

    def _refuse(self, reason: str, error: Exception | None = None) -> NoReturn:
        msg = f"{self.name} of {self.workflow_name} cannot be exported: {reason}"
        raise WorkflowError(msg) from error

    @property
    def install_command(self) -> str:
        """The shell command that installs the requirement of the task's environment."""
        return f"python -m pip install {shlex.quote(str(self.requirement))}"

    @property
    def python(self) -> str:
        """The source that executes the task; the program around it defines `recipe_run_id`."""
        return f"from {self.task.__module__} import {self.name}\nwith {self._call} as task:\n    task()\n"

    @property
    def notebook_cell(self) -> str:
        """The notebook cell that executes the task; an earlier cell sets `recipe_run_id`."""
        return (
            f"from {self.task.__module__} import {self.name}\n"
            f"with {self._call} as t:\n"
            "    #t.is_task_manual = True\n"
            "    t()\n"
            "    #t.rollback()"
        )

    @property
    def _call(self) -> str:
        return (
            f"{self.name}(recipe_run_id=recipe_run_id, workflow_name={self.workflow_name!r}, "
            f"workflow_version={self.workflow_version!r})"
        )

    @property
    def operator_definition(self) -> str:
        """The expression that creates Airflow's operator, using the names of the exported file."""
        return bash_operator.render_operator(
            task_name=self.name,
            module=self.task.__module__,
            extras=self.requirement.extras,
            queue=self.resource_queue.value,
            pool=self.pool,
            retries=int(self.task.retries),
            retry_delay_seconds=_plain(self.task.retry_delay_seconds),
            overdue_after_seconds=self.overdue_after_seconds,
        )

    @property
    def operator(self) -> Any:
        """
        Airflow's operator, not yet part of a DAG.

        Airflow renders the operator's variables with the macros that `Workflow.load` gives its DAG. To run, the
        operator needs a DAG with these macros.

        Raises:
            EngineMissingError: Airflow is not installed.
        """
        shared = bash_operator.render_shared(
            self.workflow_name, self.workflow_version, self.requirement.name, nodes=[self.name], edges=[]
        )
        source = f"{bash_operator.IMPORTS}\n{shared}operator = {self.operator_definition}\n"
        return exec_dag_source(source, self.name)["operator"]


def _plain(number: float) -> float:
    """Return a number as a plain int or float: the text of a foreign number class is not readable elsewhere."""
    return int(number) if isinstance(number, int) else float(number)
