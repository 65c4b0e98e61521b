"""
Cost of the recorder for a task that computes, one that reads and writes, the process of an empty one, and the launcher.

With and without a recorder, the process is the one that a launcher starts, without the launcher. Not here: telemetry.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict

from benchmarks.figures import Findings
from benchmarks.ground import ROOT, Ground, environment
from benchmarks.plan import Plan
from benchmarks.sides.launched_process import RECORDED
from benchmarks.sides.no_op import FIGURES
from benchmarks.sides.work import PAIRS, PROCESSES, READY, SLICES
from benchmarks.telemetry import figures_of
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.launcher.bootstrap import MODULE

OFF, LIMIT = "the same without a recorder", "the limit that is set"
WORK = {"Computes": "task that computes", "ReadsAndWrites": "task that reads and writes"}
PERCENT = 0.5
ADDED, ADDED_MS = "added to a no-op task's process by its recorder", 3.0
LAUNCHER = f"launcher of a task with {PROCESSES} processes, share of one processor"
LAUNCHER_PERCENT = 0.5
_WORK = "benchmarks.sides.work"
# Slices of about a second, and processes of a tenth of one.
_PAIRS, _PAIRS_OF_NO_OP = 12, 20
_LONGEST_OF_PAIR = 20.0
# A multiple of the time between two signs of life, after the more frequent samples of a young task.
_YOUNG_SECONDS, _WATCHED_SECONDS = 10.0, 30.0


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the cost for each kind of task, and for the launcher."""
    findings = Findings()
    for task, name in WORK.items():
        slices = [_slices(ground, task, plan.count(_PAIRS, least=2)) for _ in range(plan.rounds)]
        # What else the machine does only adds to a slice.
        on, off = ([min(pair[place] for pair in round_) for round_ in slices] for place in (0, 1))
        findings.add(f"{name}, the shortest of {_PAIRS} slices", "s", on, off, OFF, shows_spread=True)
        added = [100 * (with_it / without - 1) for with_it, without in zip(on, off, strict=True)]
        findings.add(added_name(name), "%", added, [PERCENT] * len(added), LIMIT, shows_spread=True)
        # The noise of a virtual machine is larger than what is to be seen. The thread has the interpreter meanwhile, so
        # this is what it takes from the task.
        shares = [100 * sum(used for *_, used in round_) / sum(on for on, *_ in round_) for round_ in slices]
        findings.add(share_name(name), "%", shares, [PERCENT] * len(shares), LIMIT, shows_spread=True)
    rounds = [_pairs(ground, plan.count(_PAIRS_OF_NO_OP, least=2)) for _ in range(plan.rounds)]
    for figure in ("wall", "cpu"):
        added = [1000 * (min(found[True, figure]) - min(found[False, figure])) for found in rounds]
        findings.add(f"{ADDED}, {figure}", "ms", added, [ADDED_MS] * len(added), LIMIT, shows_spread=True)
    shares = [_percent_of_launcher(ground, plan.scale) for _ in range(plan.rounds)]
    findings.add(LAUNCHER, "%", shares, [LAUNCHER_PERCENT] * len(shares), LIMIT, shows_spread=True)
    return findings


def added_name(name: str) -> str:
    """Return the name of the row with the wall time that a recorder adds to a task."""
    return f"wall time added to a {name} by its recorder"


def share_name(name: str) -> str:
    """Return the name of the row with the processor time of the recorder's thread beside a task."""
    return f"processor time of the recorder's thread beside a {name}, share of the wall time"


def _slices(ground: Ground, task: str, pairs: int) -> list[tuple[float, float, float]]:
    """Return the seconds of slices of work, with and without the recorder's thread, and those of the thread."""
    with ground.state_dir() as folder:
        file = folder / "slices"
        settings = {PAIRS: str(pairs), SLICES: str(file)}
        command = ["-m", "benchmarks.sides.launched_process", _WORK, task, RECORDED]
        figures_of(command, settings, folder, seconds=_LONGEST_OF_PAIR * pairs)
        return [tuple(pair) for pair in json.loads(file.read_text(encoding="ascii"))]


def _pairs(ground: Ground, pairs: int) -> dict[tuple[bool, str], list[float]]:
    """Return wall time and processor time of a no-op task's process, each with and without a recorder, in pairs."""
    found = defaultdict(list)
    with ground.state_dir() as folder:
        command = ["-m", "benchmarks.sides.launched_process"]
        for number in range(-1, pairs):
            for is_on in (True, False) if number % 2 else (False, True):
                figures = figures_of([*command, RECORDED] if is_on else command, {}, folder)
                # The first pair fills the caches.
                for figure in figures if number >= 0 else ():
                    found[is_on, figure].append(figures[figure])
    return found


def _percent_of_launcher(ground: Ground, scale: float) -> float:
    """Return the share of a processor that a launcher uses while its task waits."""
    attempt = Attempt(Run("bench", "dev", "bench__1", 1), "Waits", 1, 1)
    with (
        ground.state_dir() as folder,
        subprocess.Popen(
            [sys.executable, "-m", "dkist_processing_core.launcher"],
            cwd=ROOT,
            env=environment(
                DKIST_CORE_STATE_DIR=str(folder),
                **{FIGURES: str(folder / "figures"), MODULE: _WORK, **attempt.to_environ()},
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as launcher,
    ):
        assert launcher.stdout is not None
        try:
            if not any(READY in line for line in launcher.stdout):
                raise RuntimeError("the task with its processes did not start")
            time.sleep(_YOUNG_SECONDS * scale)
            used, began = _processor_seconds(launcher.pid), time.monotonic()
            time.sleep(_WATCHED_SECONDS * scale)
            return 100 * (_processor_seconds(launcher.pid) - used) / (time.monotonic() - began)
        finally:
            launcher.terminate()
            launcher.communicate()


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process, without its children, by its clock: `clock_getcpuclockid(3)`."""
    return time.clock_gettime(~pid << 3 | 2)
