"""A workflow with one empty task, run on this host: the process of the local run, which starts the task's process."""

import sys

from dkist_processing_core import TaskBase, Workflow


class NoOp(TaskBase):
    """The empty task."""

    def run(self) -> None:
        """Do nothing."""


def main() -> int:
    """Run it, and return by the exit code whether it succeeded."""
    workflow = Workflow(process_category="bench", process_name="one_task", workflow_version="1")
    workflow.add_node(NoOp)
    return 0 if workflow.run(1).succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
