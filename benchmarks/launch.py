"""
How long a worker takes to start a task: with the launcher, and with a new environment for each task as in release 7.x.

Each way runs to the first line of the task's `run`, which reports the time. The floor for the launcher is the Python of
the same environment, which imports the task's module and calls `run`. Broker and collector: none.

Not here: how an environment is built and found (dkist_processing_core.environments).
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path

from benchmarks.figures import Findings, rounded, spread
from benchmarks.ground import ROOT, Ground, environment
from benchmarks.plan import Plan
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.export.bash_operator import COMMAND
from tests.services.wheels import make_wheel

SECOND = "second task on a worker, to its first line"
FIRST = "first task of a release on a worker, to its first line"
ADDED = "second task on a worker, added by the launcher to its first line"
ADDED_TO_CALL = "second task on a worker, added by the launcher to the same task called by hand"
LOOKUP = "a process that finds an environment"
FIND = "finding an environment, one of 100 calls"
ESTABLISHED = "a new environment for the task, as established"
FLOOR = "its `run` alone, in the same environment"
BY_HAND = "the same task called by hand"
LIMIT = "the limit that is set"
BARE = "a process that does nothing"
FIRST_FIND = "the first of them, its import too"
LEAST_TIMES = 30
LIMIT_SECONDS = 0.3

_LOOKUPS = 100
_CALLS = 100
_SECONDS = 300
PACKAGE, VERSION, MODULE, TASK = "bench-pipeline", "1.0.0", "bench_pipeline", "FirstLine"
_SAID = "first line at"
SOURCE = f"""
import time

from dkist_processing_core import TaskBase


class {TASK}(TaskBase):
    def run(self):
        print("{_SAID}", time.time(), flush=True)
"""

_MAKE = f'{TASK}(recipe_run_id=1, workflow_name="bench", workflow_version="{VERSION}")'
_CALL = f"""
from {MODULE} import {TASK}
with {_MAKE} as task: task()
"""
_RUN = f"""
from {MODULE} import {TASK}
{_MAKE}.run()
"""
# The full work for a task where each task gets a separate environment; $0 is the folder.
_ESTABLISHED = f"""
set -e
"$DKIST_CORE_PYTHON" -m venv "$0"
. "$0/bin/activate"
pip install --upgrade pip
pip list
pip install {PACKAGE}=={VERSION}
pip list
python -c "$PROGRAM"
date +'task ended at %s.%N'
deactivate
rm -rf "$0"
"""
_FIND_SOURCE = f"""
import os
from dkist_processing_core.environments import Environments, Requirement, folder_of
def find():
    with Environments(folder_of(os.environ)).find(Requirement.of("{PACKAGE}", "{VERSION}")): pass
"""
_FIND_ONCE = f"{_FIND_SOURCE}\nfind()\n"
_FIND_OFTEN = f"""
from time import perf_counter
began = perf_counter()
{_FIND_ONCE}
print(perf_counter() - began)
for _ in range({_CALLS}):
    began = perf_counter()
    find()
    print(perf_counter() - began)
"""


class LaunchError(RuntimeError):
    """A task did not run as it should; the message ends with the output."""


@dataclass(frozen=True)
class Timing:
    """Seconds from the start of a way to the task's first line, and to the end of its work."""

    first_line: float
    whole: float


def first_line_at(output: str) -> float:
    """Return the time that a task has reported, in seconds since 1970."""
    found = re.findall(rf"^{_SAID} ([\d.]+)$", output, re.MULTILINE)
    if len(found) != 1:
        msg = f"the task said {len(found)} times when it began, and not once\n{output[-3000:]}"
        raise LaunchError(msg)
    return float(found[0])


@dataclass
class Worker:
    """A folder with the files that a worker keeps: wheels, caches, environments and the journal."""

    folder: Path
    host: str = sys.executable
    """The Python that launches tasks and creates environments."""
    events: int = 0
    """The number of events that the journal should hold after the runs so far."""
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        """Set the paths in the folder."""
        self.wheels, self.environments = self.folder / "wheels", self.folder / "environments"
        self.state, self.elsewhere = self.folder / "state", self.folder / "elsewhere"
        self.elsewhere.mkdir()

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables of every process: no bus, and wheels and caches of this folder."""
        # As a URL: a space would split a path into two.
        links = f"{self.wheels.as_uri()} {os.environ.get('PIP_FIND_LINKS', '')}".rstrip()
        return environment(
            PIP_FIND_LINKS=links,
            PIP_CACHE_DIR=str(self.folder / "pip"),
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            UV_CACHE_DIR=str(self.folder / "uv"),
            DKIST_CORE_PYTHON=self.host,
            DKIST_CORE_STATE_DIR=str(self.state),
            **{"DKIST_CORE_ENVIRONMENTS_DIR": str(self.environments), **more},
        )

    def run(self, command: list[str], **variables: str) -> str:
        """Run a program to its end, away from the checkout, and return its output."""
        # In this folder, nothing of the checkout is imported by chance.
        done = subprocess.run(
            command,
            cwd=self.elsewhere,
            env=self.variables(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            msg = f"{command[:3]} exited with {done.returncode}\n{done.stdout[-3000:]}"
            raise LaunchError(msg)
        return done.stdout

    def prepare(self) -> None:
        """Build the wheels, and download their requirements."""
        self.make_wheels()
        # pip keeps its cache only if the index allows that; local files are the fastest source for both ways.
        self.run([self.host, "-m", "pip", "download", "-d", str(self.wheels), f"{PACKAGE}=={VERSION}", "pip"])

    def make_wheels(self) -> None:
        """Build the wheel of this checkout and of a pipeline that needs it."""
        self.wheels.mkdir()
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(self.wheels)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        core = f"dkist-processing-core=={version('dkist-processing-core')}"
        make_wheel(self.wheels, PACKAGE, VERSION, requires=[core], files={f"{MODULE}.py": SOURCE})

    # The ways to a task's first line

    def launch(self, **variables: str) -> Timing:
        """Start a task as exported operators do."""
        number = next(self.numbers)
        self.events += 3
        return self._timed(
            ["/bin/bash", "-c", COMMAND],
            DKIST_CORE_RUN_ID=f"bench__{number}",
            DKIST_CORE_WORKFLOW="bench",
            DKIST_CORE_VERSION=VERSION,
            DKIST_CORE_PACKAGE=PACKAGE,
            DKIST_CORE_TASK=TASK,
            DKIST_CORE_TASK_MODULE=MODULE,
            DKIST_CORE_ATTEMPT="1",
            DKIST_CORE_MAX_ATTEMPTS="1",
            DKIST_CORE_RECIPE_RUN_ID="1",
            **variables,
        )

    def launch_first(self) -> Timing:
        """Start a task of a release for which the worker has no environment."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="new-") as folder:
            return self.launch(DKIST_CORE_ENVIRONMENTS_DIR=folder)

    def establish(self) -> tuple[Timing, float]:
        """
        Create an environment, start a task in it, remove it; return the task's times, and the time of the removal.
        """
        self.events += 2
        began = time.time()
        output = self.run(["/bin/bash", "-c", _ESTABLISHED, str(self.folder / "task_venv")], PROGRAM=_CALL)
        ended = time.time()
        removal = ended - float(output.rpartition("task ended at ")[2])
        return Timing(first_line_at(output) - began, ended - began), removal

    def run_alone(self) -> Timing:
        """Have the environment's Python do only the steps up to the first line."""
        return self._timed([self.python, "-P", "-c", _RUN])

    def call(self) -> Timing:
        """Call the task by hand in the same environment: it reports for itself."""
        self.events += 2
        return self._timed([self.python, "-P", "-c", _CALL])

    @property
    def python(self) -> str:
        """The interpreter of the one environment that was built first."""
        (link,) = (path for path in self.environments.iterdir() if path.is_symlink())
        return str(link.resolve() / "bin" / "python")

    def _timed(self, command: list[str], **variables: str) -> Timing:
        began = time.time()
        output = self.run(command, **variables)
        return Timing(first_line_at(output) - began, time.time() - began)

    def check_books(self) -> None:
        """Raise an error if an event was lost, or is not in the journal."""
        settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=self.state)
        with open_bus(settings).open_journal() as journal:
            books = journal.books()
        if books.published != self.events:
            msg = f"{self.events} events were published, the journal says {books}"
            raise LaunchError(msg)


@contextmanager
def open_worker(ground: Ground) -> Iterator[Worker]:
    """Yield a worker that has never run a task, with the wheels available."""
    with tempfile.TemporaryDirectory(dir=ground.folder, prefix="worker-") as folder:
        worker = Worker(Path(folder))
        worker.prepare()
        yield worker


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the time to a task's first line for each way, and the cost of a lookup."""
    findings = Findings()
    with open_worker(ground) as worker:
        # It fills uv's cache, and is the only launch with an empty one.
        very_first = worker.launch()
        seconds, whole, removals = _take_turns(worker, plan)
        worker.check_books()
        add_ways(findings, seconds)
        findings.notes["launch"] = {
            "very first task, uv's cache empty, s": rounded(very_first.first_line),
            "to the end of all, s": {name: spread(samples) for name, samples in whole.items()},
            "removal of the established environment, s": spread(removals),
            "samples, s": {name: list(map(rounded, samples)) for name, samples in seconds.items()},
        }
        _add_lookups(findings, worker, plan)
    return findings


def _take_turns(worker: Worker, plan: Plan) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Run all ways in turn; return seconds to the first line and to the end, by way, and those of the removals."""
    removals: list[float] = []

    def establish() -> Timing:
        timing, removal = worker.establish()
        removals.append(removal)
        return timing

    ways: dict[str, Callable[[], Timing]] = {
        SECOND: worker.launch,
        FLOOR: worker.run_alone,
        BY_HAND: worker.call,
        ESTABLISHED: establish,
        FIRST: worker.launch_first,
    }
    seconds, whole = defaultdict(list), defaultdict(list)
    for name in plan.turns(list(ways)):
        timing = ways[name]()
        seconds[name].append(timing.first_line)
        whole[name].append(timing.whole)
    return seconds, whole, removals


def add_ways(findings: Findings, seconds: dict[str, list[float]]) -> None:
    """Add the rows of all ways, whose seconds to the first line are in pairs."""
    ours = seconds[SECOND]
    findings.add(SECOND, "s", ours, seconds[ESTABLISHED], ESTABLISHED, shows_spread=True)
    findings.add(SECOND, "s", ours, seconds[FLOOR], FLOOR, shows_spread=True)
    for name, base in ((ADDED, FLOOR), (ADDED_TO_CALL, BY_HAND)):
        added = [a - b for a, b in zip(ours, seconds[base], strict=True)]
        findings.add(name, "s", added, [LIMIT_SECONDS] * len(added), LIMIT, shows_spread=True)
    findings.add(FIRST, "s", seconds[FIRST], seconds[ESTABLISHED], ESTABLISHED, shows_spread=True)


def _add_lookups(findings: Findings, worker: Worker, plan: Plan) -> None:
    """Add the time of a process that finds an environment, and the part of the lookup in it."""
    laps = defaultdict(list)
    programs = {LOOKUP: _FIND_ONCE, BARE: "pass"}
    for number in range(plan.count(_LOOKUPS)):
        names = list(programs)
        for name in names if number % 2 else reversed(names):
            began = time.perf_counter()
            worker.run([sys.executable, "-P", "-c", programs[name]])
            laps[name].append(1000 * (time.perf_counter() - began))
    findings.add(LOOKUP, "ms", laps[LOOKUP], laps[BARE], BARE, shows_spread=True)
    rounds = [
        [1000 * float(lap) for lap in worker.run([sys.executable, "-P", "-c", _FIND_OFTEN]).split()]
        for _ in range(plan.rounds)
    ]
    often = [statistics.median(calls) for _, *calls in rounds]
    findings.add(FIND, "ms", often, [first for first, *_ in rounds], FIRST_FIND, shows_spread=True)
