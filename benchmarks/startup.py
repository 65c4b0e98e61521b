"""
Cost of a task's process: importing the package and running an empty task, on the embedded journal.

The floor is a process that imports only the OpenTelemetry SDK and pika, the libraries that any package which traces and
uses RabbitMQ imports. Both run in turn, so that the machine's drift hits both alike.
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from benchmarks.figures import Row, compare
from benchmarks.ground import environment

RUNS = 15
PROCESS = "no-op task's process"
BESIDE = "import of OpenTelemetry SDK and pika"
OURS = """
from dkist_processing_core import TaskBase
class NoOp(TaskBase):
    def run(self): pass
with NoOp(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""
FLOOR = """
import opentelemetry.sdk.trace.export, opentelemetry.sdk.metrics.export, opentelemetry.sdk._logs.export, pika
"""
# The import is inside the function: the floor may be a process that has imported nothing.
WITH_PEAK = """
import sys
print(len(sys.modules), next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@dataclass(frozen=True)
class Cost:
    """Cost of one process: elapsed seconds, seconds of processor time, MiB at its peak, and modules."""

    wall: float
    cpu: float
    peak: float
    modules: float
    said: str
    """Its standard error."""


def cost_of(program: str, python: str = sys.executable, **settings: str) -> Cost:
    """Run a program in a separate process, and return its cost."""
    # Outside the checkout, so that neither a module of it nor a .env is found by chance.
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [python, "-P", "-c", program + WITH_PEAK],
            cwd=folder,
            env=environment(**{"DKIST_CORE_STATE_DIR": folder, **settings}),
            check=True,
            capture_output=True,
            text=True,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    modules, peak = done.stdout.split()[-2:]
    return Cost(wall, cpu, int(peak) / 1024, int(modules), done.stderr)


def measure() -> list[Row]:
    """Return the figures: medians of each, and the median of the ratios pair by pair."""
    cost_of(OURS), cost_of(FLOOR)
    pairs = [(cost_of(OURS), cost_of(FLOOR)) for _ in range(RUNS)]
    rows = []
    for name, unit in (("wall", "s"), ("cpu", "s"), ("peak", "MiB")):
        ours = [getattr(pair[0], name) for pair in pairs]
        other = [getattr(pair[1], name) for pair in pairs]
        rows.append(compare(f"{PROCESS}, {name}", unit, ours, other, BESIDE))
    return rows
