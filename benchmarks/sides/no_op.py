"""A task that does nothing; its process writes its peak memory to a file at its exit."""

import atexit
import os
import time
from pathlib import Path

from dkist_processing_core import TaskBase

FIGURES = "BENCH_FIGURES"
"""The variable that names the file: its lines are the peak memory in KiB, and the time at which `run` returned."""


class NoOp(TaskBase):
    """The empty task."""

    def run(self) -> None:
        """Register the figures now, before the exit that is measured."""
        atexit.register(_write_figures, time.time())


def _write_figures(returned: float) -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    Path(os.environ[FIGURES]).write_text(f"{peak}\n{returned!r}\n", encoding="ascii")


if __name__ == "__main__":
    with NoOp(recipe_run_id=1, workflow_name="bench", workflow_version="dev") as task:
        task()
