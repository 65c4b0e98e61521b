"""
This library compared with the published release that it replaces, on the one Python that both support.

`_sides` defines the two, the other modules measure: `_processes` the process of a task, `_worker` the work before it,
`_homes` the installed packages, `_looks` the cost of its file in Airflow. Not here: other peers.
"""

import tempfile
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.ground import Ground
from benchmarks.plan import Plan
from benchmarks.replaced._homes import COUNT, SIZE, add_homes, make_home
from benchmarks.replaced._looks import ADDED, LOOK, add_looks, measure_looks
from benchmarks.replaced._pipeline import export
from benchmarks.replaced._processes import (
    COLLECTOR_ROUNDS,
    IMPORT,
    REFUSED,
    SILENT,
    TASK,
    add_dead_collectors,
    add_processes,
)
from benchmarks.replaced._sides import BESIDE, DISTRIBUTION, RELEASE, SIDES, THEIRS, find_python
from benchmarks.replaced._worker import (
    ENVIRONMENT,
    WORKER_ROUNDS,
    Established,
    Kept,
    add_second_tasks,
)

__all__ = [
    "ADDED",
    "BESIDE",
    "COLLECTOR_ROUNDS",
    "COUNT",
    "ENVIRONMENT",
    "IMPORT",
    "LOOK",
    "REFUSED",
    "RELEASE",
    "SILENT",
    "SIZE",
    "TASK",
    "WORKER_ROUNDS",
    "measure",
]


def measure(ground: Ground, plan: Plan) -> Findings:
    """Measure both in turn, in prepared environments and in new ones."""
    python = find_python()
    for side in SIDES:
        side.check()
    findings = Findings()
    with tempfile.TemporaryDirectory(dir=ground.folder, prefix="replaced-") as name:
        folder = Path(name)
        (folder / "kept").mkdir()
        kept = Kept(folder / "kept", str(folder / "ours" / "bin" / "python"))
        kept.make_wheels()
        (wheel,) = kept.wheels.glob(f"{DISTRIBUTION.replace('-', '_')}-*.whl")
        ours = make_home(folder / "ours", python, str(wheel))
        theirs = make_home(folder / "theirs", python, f"{DISTRIBUTION}=={RELEASE}")
        exported = {side: export(side, folder / f"exported-{side.release}") for side in SIDES}
        add_processes(findings, plan, (ours, theirs))
        add_dead_collectors(findings, plan)
        # The first task of a release builds the environment that the second one finds.
        kept.launch()
        established = Established(folder / "established", python, exported[THEIRS], theirs)
        add_second_tasks(findings, plan, kept, established)
        add_looks(findings, measure_looks(plan, folder, exported))
        add_homes(findings, ours, theirs)
    return findings
