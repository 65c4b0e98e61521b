"""
Cost of the import and of an empty task in a process, and the addition of a collector that does not answer.

Not here: the environments (_sides, _homes), and the work of a worker before it (_worker).
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.plan import Plan
from benchmarks.replaced._homes import Home
from benchmarks.replaced._sides import BESIDE, OURS, THEIRS, ReplacedError
from benchmarks.startup import OURS as TASK_PROGRAM
from benchmarks.startup import Cost, cost_of
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.services.sockets import LOOPBACK, BlackHole, closed_port

PYTHON = "Python's own start, nothing imported"
NAME = "import of the package's name alone"
IMPORT = "import of `TaskBase` and `Workflow`"
IMPORT_AT_HOME = f"{IMPORT}, installed alone"
TASK = "a no-op task's process"
REFUSED = "a no-op task's process, collector refuses"
SILENT = "a no-op task's process, collector silent"
COLLECTOR_ROUNDS = 3
_EVENTS = 2
_SIGNALS = ("traces", "metrics")
_IMPORT_PROGRAM = "from dkist_processing_core import TaskBase, Workflow\n"
_PROGRAMS = {
    PYTHON: "",
    NAME: "import dkist_processing_core\n",
    IMPORT: _IMPORT_PROGRAM,
    IMPORT_AT_HOME: _IMPORT_PROGRAM,
    TASK: TASK_PROGRAM,
}
_UNITS = {"wall": "s", "cpu": "s", "peak": "MiB", "modules": "number"}
_SHOWN = {
    PYTHON: ["wall"],
    NAME: ["wall"],
    IMPORT: list(_UNITS),
    IMPORT_AT_HOME: ["wall", "modules"],
    TASK: ["wall", "cpu", "peak"],
}
Pythons = tuple[Path, Path]
"""The Python of this library, and the Python of the release that it replaces."""
WasTried = Callable[[str], bool]
"""A predicate on the output of a task: whether it has tried to reach the collector."""


def add_processes(findings: Findings, plan: Plan, homes: tuple[Home, Home]) -> None:
    """Add the cost of the import and of an empty task, on the embedded journal if the release has one."""
    sides = (OURS.python, THEIRS.python)
    pythons = dict.fromkeys(_PROGRAMS, sides) | {IMPORT_AT_HOME: (homes[0].python, homes[1].python)}
    for each in dict.fromkeys(python for pair in pythons.values() for python in pair):
        # The first process compiles the imported modules and loads them from the disk.
        cost_of(TASK_PROGRAM, str(each))
    costs: dict[tuple[str, Path], list[Cost]] = defaultdict(list)
    for name, python in plan.turns([(name, python) for name, pair in pythons.items() for python in pair]):
        cost = _task_cost(python) if name == TASK else cost_of(_PROGRAMS[name], str(python))
        costs[name, python].append(cost)
    for name, pair in pythons.items():
        ours, other = (costs[name, python] for python in pair)
        for figure in _SHOWN[name]:
            samples = [[getattr(cost, figure) for cost in side] for side in (ours, other)]
            unit = _UNITS[figure]
            findings.add(f"{name}, {figure}", unit, samples[0], samples[1], BESIDE, shows_spread=unit == "s")


@contextmanager
def _refusing() -> Iterator[tuple[int, WasTried]]:
    with closed_port() as port:
        yield port, lambda said: f"{LOOPBACK}:{port}" in said


@contextmanager
def _silent() -> Iterator[tuple[int, WasTried]]:
    with BlackHole() as hole:
        yield hole.port, lambda _: _has_visitor(hole)


def _has_visitor(hole: BlackHole) -> bool:
    try:
        hole.wait_for_connection(0)
    except TimeoutError:
        return False
    return True


COLLECTORS: Mapping[str, Callable[[], AbstractContextManager[tuple[int, WasTried]]]] = {
    REFUSED: _refusing,
    SILENT: _silent,
}


def add_dead_collectors(findings: Findings, plan: Plan) -> None:
    """Add the cost of the same task where traces and metrics go to a collector that does not accept them."""
    few = Plan(min(plan.rounds, COLLECTOR_ROUNDS), plan.scale)
    walls: dict[tuple[str, Path], list[float]] = defaultdict(list)
    pythons = (OURS.python, THEIRS.python)
    for name, python in few.turns([(name, python) for name in COLLECTORS for python in pythons]):
        with COLLECTORS[name]() as (port, was_tried):
            cost = _task_cost(python, MESH_CONFIG=mesh_config(port))
            if not was_tried(cost.said):
                raise ReplacedError(f"{python} has not tried to export anything\n{cost.said[-3000:]}")
        walls[name, python].append(cost.wall)
    for name in COLLECTORS:
        ours, other = (walls[name, python] for python in pythons)
        findings.add(f"{name}, wall", "s", ours, other, BESIDE, shows_spread=True)


def mesh_config(port: int) -> str:
    """Return the one setting that names a collector to both sides."""
    place = {"mesh_address": LOOPBACK, "mesh_port": port}
    return json.dumps({f"otlp-{signal}-endpoint": place for signal in _SIGNALS})


def _task_cost(python: Path, **settings: str) -> Cost:
    """Run an empty task; for this library, raise an error if an event of it is not in the journal."""
    with tempfile.TemporaryDirectory() as folder:
        cost = cost_of(TASK_PROGRAM, str(python), DKIST_CORE_STATE_DIR=folder, **settings)
        if python == OURS.python:
            with open_bus(
                DKISTProcessingCoreConfiguration(dkist_core_state_dir=Path(folder))
            ).open_journal() as journal:
                books = journal.books()
            if books.published != _EVENTS:
                raise ReplacedError(f"{_EVENTS} events were published, the journal says {books}")
    return cost
