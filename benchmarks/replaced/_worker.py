"""
How long a worker takes to get the environment of a second task of a release, and to reach the first line of its `run`.

Not here: the content of each release's environment (_homes).
"""

import os
import resource
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.ground import ROOT, environment
from benchmarks.launch import PACKAGE, VERSION, Worker, first_line_at
from benchmarks.plan import Plan
from benchmarks.replaced._homes import Home
from benchmarks.replaced._pipeline import FILES, command_of
from benchmarks.replaced._sides import BESIDE, DISTRIBUTION, RELEASE, ReplacedError, run
from tests.services.wheels import make_wheel

ENVIRONMENT = "the environment of a second task on a worker"
FIRST_LINE = "a second task on a worker, to its first line"
PROCESSORS = "a second task on a worker, processor time of it all"
WORKER_ROUNDS = 2
_STANDS = "Run Main Command"
"""The line that an exported command prints right after it has created its environment."""
_SECONDS = 900
_PREPARE = f"""
import os
from dkist_processing_core.environments import Environments, Requirement, folder_of
with Environments(folder_of(os.environ)).prepare(Requirement.of("{PACKAGE}", "{VERSION}")): pass
"""


@dataclass(frozen=True)
class Effort:
    """Seconds to the environment and to the first line, and processor time of the whole work."""

    environment: float
    first_line: float
    processors: float


class Established:
    """A worker that creates an environment for each task, by the command that the replaced release exports."""

    def __init__(self, folder: Path, python: str, exported: Path, home: Home) -> None:
        """Download every required wheel, and upgrade the host's own pip."""
        self.folder, self.wheels = folder, folder / "wheels"
        self._command = command_of(exported.read_text(encoding="utf-8"))
        self._host = folder / "host"
        folder.mkdir()
        make_wheel(
            self.wheels,
            PACKAGE,
            VERSION,
            requires=[f"{DISTRIBUTION}=={RELEASE}"],
            extras={"frozen": home.frozen()},
            files=FILES,
        )
        run(python, "-m", "venv", self._host, cwd=folder)
        pip = (self._host / "bin" / "python", "-m", "pip")
        run(*pip, "install", "--upgrade", "pip", cwd=folder, **self.variables)
        run(*pip, "download", "-d", self.wheels, f"{PACKAGE}[frozen]=={VERSION}", "pip", cwd=folder, **self.variables)

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables of its processes: the wheels, a cache, and a host whose Python comes first."""
        links = f"{self.wheels.as_uri()} {os.environ.get('PIP_FIND_LINKS', '')}".rstrip()
        return {
            "PATH": f"{self._host / 'bin'}:{os.environ['PATH']}",
            "PIP_FIND_LINKS": links,
            "PIP_CACHE_DIR": str(self.folder / "pip"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "AIRFLOW_HOME": str(self.folder / "airflow"),
        }

    def start(self) -> Effort:
        """Run the command of a task to its end, as the operator does."""
        before, began = _processor_seconds(), time.time()
        process = subprocess.Popen(
            ["timeout", str(_SECONDS), "/bin/bash", "-c", self._command],
            cwd=self.folder,
            env=environment(**self.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stands, lines = None, []
        with process:
            for line in process.stdout or ():
                if line.strip() == _STANDS:
                    stands = time.time()
                lines.append(line)
        output = "".join(lines)
        if process.returncode or stands is None:
            raise ReplacedError(f"the exported command exited with {process.returncode}\n{output[-3000:]}")
        return Effort(stands - began, first_line_at(output) - began, _processor_seconds() - before)


class Kept(Worker):
    """A worker of this library, which keeps the environments of releases."""

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables of any worker, with uv available."""
        return super().variables(**{"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", **more})

    def start(self) -> Effort:
        """Find the environment, in a process with no other work; then launch a task as the operator does."""
        began = time.perf_counter()
        self.run([self.host, "-P", "-c", _PREPARE])
        found = time.perf_counter() - began
        before = _processor_seconds()
        timing = self.launch()
        return Effort(found, timing.first_line, _processor_seconds() - before)


def add_second_tasks(findings: Findings, plan: Plan, ours: Kept, theirs: Established) -> None:
    """Add the time until the second task's environment is ready, and until the task begins."""
    efforts: dict[str, list[Effort]] = defaultdict(list)
    for name, start in Plan(min(plan.rounds, WORKER_ROUNDS)).turns([("ours", ours.start), ("theirs", theirs.start)]):
        efforts[name].append(start())
    ours.check_books()
    for name, figure in ((ENVIRONMENT, "environment"), (FIRST_LINE, "first_line"), (PROCESSORS, "processors")):
        mine, other = ([getattr(effort, figure) for effort in efforts[side]] for side in ("ours", "theirs"))
        findings.add(name, "s", mine, other, BESIDE, shows_spread=True)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
