"""A workflow of one task that does nothing, run on this host: the engine's process, which starts the task's."""

import sys

from dkist_processing_core import TaskBase, Workflow


class NoOp(TaskBase):
    """The task that does nothing."""

    def run(self) -> None:
        """Do nothing."""


def main() -> int:
    """Run it, and return by the exit code whether it succeeded."""
    workflow = Workflow(process_category="bench", process_name="one_task", workflow_version="1")
    workflow.add_node(NoOp)
    return 0 if workflow.run(1).succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
