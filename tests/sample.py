"""
A workflow with everything that an export has to contain; importable by any Python that has the library.
"""

from typing import Any

from dkist_processing_core import ResourceQueue, TaskBase, Workflow


class First(TaskBase):
    """
    A task without retries.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class Second(TaskBase):
    """
    A task with three retries, 90 seconds apart.
    """

    retries = 3
    retry_delay_seconds = 90

    def run(self) -> None:
        """
        Do nothing.
        """


class Third(First):
    """
    Another task without retries.
    """


def workflow(**names: Any) -> Workflow:
    """
    Return a workflow with everything that an export has to contain.
    """
    names = {"input_data": "l0", "output_data": "l1", "category": "visp", "detail": "sample"} | names
    built = Workflow(
        workflow_package="dkist_processing_visp.workflows", workflow_version="1.2.3", **{"tags": "nightly"} | names
    )
    built.add_node(First)
    built.add_node(Second, upstreams=First, resource_queue=ResourceQueue.HIGH_MEMORY, pip_extras=["asdf", "quality"])
    built.add_node(Third, upstreams=[First, Second])
    return built
