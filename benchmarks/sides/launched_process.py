"""The process of the empty task as its launcher starts it; prints its wall time and its processor time."""

import os
import sys
import time
from pathlib import Path

from benchmarks.sides.job import report
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.launcher._process import Pipes, TaskProcess
from dkist_processing_core.launcher.bootstrap import MODULE, variables


def main() -> int:
    """Run it to its end, and return its status."""
    pipes, began = Pipes(), time.monotonic()
    attempt = Attempt(
        Run("bench", "dev", "bench__1", 1),
        "NoOp",
        1,
        1,
        report_fd=pipes.report_fd,
        started_fd=pipes.started_fd,
        start_id="bench",
        process_began=began,
    )
    located = {MODULE: "benchmarks.sides.no_op", "PYTHONPATH": str(Path.cwd())}
    environ = {**os.environ, **attempt.to_environ(), **variables(), **located}
    process = TaskProcess.start([sys.executable], environ, pipes, [], began)
    process.record_start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.close()
    report(wall=wall, cpu=usage.ru_utime + usage.ru_stime)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
