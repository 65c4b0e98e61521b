"""A task with many spans and log records; its last line has the seconds for each kind, and the memory in KiB."""

import logging
import sys
import time
from pathlib import Path

from benchmarks.sides.job import report
from dkist_processing_core import TaskBase


class Many(TaskBase):
    """The task."""

    def run(self) -> None:
        """Open spans and log records, as many of each as the arguments of the program."""
        spans, records = map(int, sys.argv[1:])
        log = logging.getLogger("bench")
        # Formatted and exported, and shown nowhere.
        log.addHandler(logging.NullHandler())
        log.propagate = False
        before, began = _peak(), time.perf_counter()
        for _ in range(spans):
            with self.telemetry_span("one of many"):
                pass
        of_spans = time.perf_counter() - began
        for number in range(records):
            log.warning("record %d of many", number)
        of_records = time.perf_counter() - began - of_spans
        report(spans=of_spans, logs=of_records, grown=_peak() - before)


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    with Many(recipe_run_id=1, workflow_name="bench", workflow_version="dev") as task:
        task()
