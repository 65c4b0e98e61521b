"""
What a task's process costs: importing the package and running a task that does nothing, on the embedded journal.

The floor beside it is a process that imports only the OpenTelemetry SDK and pika, the libraries that any package which
traces and talks to RabbitMQ imports. Both run in turn, so that the machine's drift hits both alike.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from benchmarks.figures import Row, compare

RUNS = 15
OURS = """
from dkist_processing_core import TaskBase
class NoOp(TaskBase):
    def run(self): pass
with NoOp(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""
FLOOR = """
import opentelemetry.sdk.trace.export, opentelemetry.sdk.metrics.export, opentelemetry.sdk._logs.export, pika
"""
WITH_PEAK = """
import re
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds by the clock, seconds of processor time, MiB at its peak."""

    wall: float
    cpu: float
    peak: float


def cost_of(program: str) -> Cost:
    """Run a program in a process of its own."""
    # With bytecode, as an installation has it: an editable checkout would else be compiled at every start.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program + WITH_PEAK],
            env=environment | {"DKIST_CORE_STATE_DIR": folder},
            check=True,
            capture_output=True,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, int(done.stdout.split()[-1]) / 1024)


def measure() -> list[Row]:
    """Return the figures: medians of each, and the median of the ratios pair by pair."""
    cost_of(OURS), cost_of(FLOOR)
    pairs = [(cost_of(OURS), cost_of(FLOOR)) for _ in range(RUNS)]
    rows = []
    for name, unit in (("wall", "s"), ("cpu", "s"), ("peak", "MiB")):
        ours = [getattr(pair[0], name) for pair in pairs]
        other = [getattr(pair[1], name) for pair in pairs]
        floor = "import of OpenTelemetry SDK and pika"
        rows.append(compare(f"no-op task's process, {name}", unit, ours, other, floor))
    return rows
