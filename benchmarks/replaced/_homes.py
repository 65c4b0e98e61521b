"""
Size of environments that hold only a release and its requirements.

Not here: the time to create one for a task (_worker).
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.ground import ROOT
from benchmarks.replaced._sides import BESIDE, pins, run

SIZE = "a task's environment, files without bytecode"
COUNT = "a task's environment, distributions"
_UV = ROOT / ".venv" / "bin" / "uv"


@dataclass(frozen=True)
class Home:
    """One environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def distributions(self) -> int:
        """The number of installed distributions."""
        return len(list(self.folder.glob("lib/python*/site-packages/*.dist-info")))

    @property
    def size(self) -> int:
        """The size of its installed files in bytes, without the files that Python compiles from them."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files if path.suffix != ".pyc")

    def frozen(self) -> list[str]:
        """Return the installed packages, each as `name==version`."""
        listed = run(_UV, "pip", "freeze", "--python", self.python, cwd=self.folder)
        return [line for line in listed.splitlines() if "==" in line]


def make_home(folder: Path, python: str, wanted: str) -> Home:
    """Install a release, at the versions that both sides share, into a new environment without an installer."""
    constraints = folder.with_suffix(".txt")
    constraints.write_text("\n".join(pins()) + "\n")
    run(_UV, "venv", "--quiet", "--python", python, folder, cwd=folder.parent)
    home = Home(folder)
    install = ("pip", "install", "--quiet", "--python", home.python, "--constraint", constraints)
    run(_UV, *install, wanted, cwd=folder)
    return home


def add_homes(findings: Findings, ours: Home, theirs: Home) -> None:
    """Add the sizes of the environments."""
    findings.add(SIZE, "MiB", [ours.size / 2**20], [theirs.size / 2**20], BESIDE)
    findings.add(COUNT, "number", [ours.distributions], [theirs.distributions], BESIDE)
