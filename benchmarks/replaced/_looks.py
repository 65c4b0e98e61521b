"""
Cost of Airflow's look at an exported file. Airflow's own part is that of the same file with nothing attached.

Not here: the looking (sides.parse_files), and the file (_pipeline).
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.ground import environment
from benchmarks.parse import Look, looks_at, without_callbacks
from benchmarks.plan import Plan
from benchmarks.replaced._pipeline import TASKS
from benchmarks.replaced._sides import BESIDE, OURS, SIDES, THEIRS, Side

LOOK = f"a look at the exported file of {TASKS} tasks"
BARE = "a look at the same DAG with nothing attached"
ADDED = "added to a look at the bare DAG"
ADDED_MODULES = "modules added to a look at the bare DAG"
ADDED_MEMORY = "memory added to a look at the bare DAG"
_LOOKS = 6
Looks = Mapping[Side, Sequence[tuple[Look, Look]]]
"""By side, round by round: the medians of the exported file, and of the same DAG with nothing attached."""


def measure_looks(plan: Plan, folder: Path, exported: Mapping[Side, Path]) -> Looks:
    """Have an Airflow with the release look at its exported file, and at the same file with nothing attached."""
    environ = environment(AIRFLOW_HOME=str(folder / "airflow"))
    files = {side: [path, _bare(path)] for side, path in exported.items()}
    found: dict[Side, list[tuple[Look, Look]]] = defaultdict(list)
    for side in plan.turns(SIDES):
        count = max(2, round(_LOOKS * plan.scale))
        looks, bare = looks_at(side.python, files[side], count, folder, environ)
        found[side].append((_median(looks), _median(bare)))
    return found


def _bare(exported: Path) -> Path:
    path = exported.parent.with_name("bare") / exported.name
    path.parent.mkdir()
    path.write_text(without_callbacks(exported.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def _median(looks: Sequence[Look]) -> Look:
    return Look(*(statistics.median(figures) for figures in zip(*looks, strict=True)))


def add_looks(findings: Findings, looks: Looks) -> None:
    """Add the rows: full looks, and the part that each release adds to Airflow's own part."""
    ours, theirs = looks[OURS], looks[THEIRS]
    for name, which in ((LOOK, 0), (BARE, 1)):
        mine, other = ([pair[which].ms for pair in side] for side in (ours, theirs))
        findings.add(name, "ms", mine, other, BESIDE, shows_spread=True)
    for name, unit, figure in ((ADDED, "ms", "ms"), (ADDED_MODULES, "number", "modules"), (ADDED_MEMORY, "MiB", "mib")):
        mine, other = (
            [getattr(whole, figure) - getattr(bare, figure) for whole, bare in side] for side in (ours, theirs)
        )
        findings.add(name, unit, mine, other, BESIDE, shows_spread=True)
