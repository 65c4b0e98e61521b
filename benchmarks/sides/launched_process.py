"""
The process of a task as its launcher starts it; prints its wall time and its processor time.

    python -m benchmarks.sides.launched_process [MODULE TASK] [recorded]

The task is the empty one by default. With `recorded` it has a recorder, which a launcher always gives it if it can.
"""

import os
import sys
import time
from pathlib import Path

from benchmarks.sides.job import report
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.launcher._process import Pipes, TaskProcess
from dkist_processing_core.launcher.bootstrap import MODULE, variables
from dkist_processing_core.recorder.region import VARIABLE, create

RECORDED = "recorded"


def main() -> int:
    """Run it to its end, and return its status."""
    *named, recorded = sys.argv[1:] if sys.argv[-1] == RECORDED else [*sys.argv[1:], ""]
    module, task = named or ("benchmarks.sides.no_op", "NoOp")
    pipes, began = Pipes(), time.monotonic()
    # In the measured time, as the launcher makes it.
    recorder = create(None) if recorded else None
    lent = [recorder.descriptor] if recorder is not None and recorder.descriptor is not None else []
    attempt = Attempt(
        Run("bench", "dev", "bench__1", 1),
        task,
        1,
        1,
        report_fd=pipes.report_fd,
        started_fd=pipes.started_fd,
        start_id="bench",
        process_began=began,
    )
    located = {MODULE: module, "PYTHONPATH": str(Path.cwd())} | ({VARIABLE: str(lent[0])} if lent else {})
    environ = {**os.environ, **attempt.to_environ(), **variables(), **located}
    process = TaskProcess.start([sys.executable], environ, pipes, lent, began)
    process.record_start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.close()
    report(wall=wall, cpu=usage.ru_utime + usage.ru_stime)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
