"""
A task's place in a workflow.

Not here: the edges' consistency (workflow) and how a node runs (local, launcher).
"""

from dataclasses import dataclass

from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase


@dataclass(frozen=True, slots=True)
class Node:
    """A task, what it waits for, and what it needs."""

    task: type[TaskBase]
    upstreams: tuple[type[TaskBase], ...] = ()
    resource_queue: ResourceQueue = ResourceQueue.DEFAULT
    pip_extras: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the task, by which the node is known in its workflow."""
        return self.task.__name__

    @property
    def upstream_names(self) -> tuple[str, ...]:
        """The names of the tasks that this one waits for."""
        return tuple(upstream.__name__ for upstream in self.upstreams)
