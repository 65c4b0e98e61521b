"""
The two sides: this library, and the release that it replaces, each among the same packages of the pipelines' world.

Not here: the measurements.
"""

import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.ground import ROOT, environment

DISTRIBUTION = "dkist-processing-core"
RELEASE = "7.5.0"
BESIDE = f"release {RELEASE}"
_PYTHON = "3.13"
_FIND = ROOT / "requirements" / "environment.sh"
_LOCK = ROOT / "requirements" / "clients.txt"
_VERSION = "import dkist_processing_core; print(dkist_processing_core.__version__)"


class ReplacedError(RuntimeError):
    """The two releases cannot be compared; the message contains the reason."""


@dataclass(frozen=True)
class Side:
    """A release of the distribution, and the Python of an environment that holds it."""

    release: str
    python: Path

    def check(self) -> None:
        """Raise an error if the environment has another release."""
        if not self.python.exists():
            raise ReplacedError(f"{self.python} is missing; `make bench` makes its environment first")
        found = run(self.python, "-P", "-c", _VERSION, cwd=self.python.parent).splitlines()[-1]
        if found != self.release:
            raise ReplacedError(f"{self.python} imports release {found}, and not {self.release}")


OURS = Side(version(DISTRIBUTION), ROOT / ".venv-clients" / "bin" / "python")
THEIRS = Side(RELEASE, ROOT / ".venv-replaced" / "bin" / "python")
SIDES = (OURS, THEIRS)


def find_python(find: Path = _FIND) -> str:
    """Return the only Python that both run on."""
    found = subprocess.run([find, "find", _PYTHON], check=False, capture_output=True, text=True)
    if found.returncode:
        raise ReplacedError(f"Install Python {_PYTHON} to measure beside {BESIDE}, which runs on no other.")
    return found.stdout.strip()


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program to its end without the machine's settings, and return its standard output."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(**variables), check=False, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise ReplacedError(f"{command[:3]} exited with {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def pins(lock: Path = _LOCK) -> list[str]:
    """
    Return the pins that both sides share, each as `name==version`: all requirements without the two releases.
    """
    locked = re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return [f"{name}=={version}" for name, version in locked if name != DISTRIBUTION]
