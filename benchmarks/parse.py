"""
Cost that the library's callbacks add to Airflow's look at an exported file, compared with the same DAG without them.

The library is installed from its wheel, with bytecode, as on a scheduler's host; Airflow is loaded. Not here: the
looking (sides.parse_files).
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Findings
from benchmarks.ground import ROOT, Ground
from benchmarks.plan import Plan

AIRFLOW_PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
LOOK = "the engine's look at an exported file of 8 tasks"
PLAIN = "the same DAG without our callbacks"
LIMIT = 1.1
_LOOKS = 40
_EXPORT = "import sys; from solar_calibration import workflow; print(workflow.export_dag(sys.argv[1]))"


class WithoutCallbacks(ast.NodeTransformer):
    """Removes from an exported file all parts that the library attaches."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Leave out imports of this library."""
        return None if (node.module or "").startswith("dkist_processing_core") else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Leave out the object whose methods are attached."""
        is_ours = isinstance(node.targets[0], ast.Name) and node.targets[0].id == "callbacks"
        return None if is_ours else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Leave out arguments that the library adds."""
        node.keywords = [each for each in node.keywords if not _is_ours(each.arg)]
        return self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Leave out arguments that several operators share."""
        kept = [pair for pair in zip(node.keys, node.values, strict=True) if not _is_ours(_constant(pair[0]))]
        node.keys, node.values = [key for key, _ in kept], [value for _, value in kept]
        return self.generic_visit(node)


def _is_ours(name: object) -> bool:
    return isinstance(name, str) and (name.endswith("_callback") or name == "user_defined_macros")


def _constant(node: ast.AST | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def without_callbacks(source: str) -> str:
    """Return the source of the same DAG without the parts that the library attaches."""
    return ast.unparse(WithoutCallbacks().visit(ast.parse(source)))


def measure(_: Ground, plan: Plan) -> Findings:
    """Look at both alternately."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environ = _installed(folder)
        exported, plain = _files(folder, environ)
        count = plan.rounds * max(2, round(_LOOKS * plan.scale))
        looks, bare = looks_at(AIRFLOW_PYTHON, [exported, plain], count, folder, environ)
    findings.add(LOOK, "ms", [each.ms for each in looks], [each.ms for each in bare], PLAIN, shows_spread=True)
    return findings


class Look(NamedTuple):
    """Cost of one look: its time, and the growth of the process."""

    ms: float
    modules: int
    mib: float


def looks_at(
    python: Path, files: Sequence[Path], count: int, folder: Path, environ: Mapping[str, str]
) -> list[list[Look]]:
    """Return that many looks at each file, alternately, by the Airflow of a Python."""
    done = subprocess.run(
        [str(part) for part in (python, ROOT / "benchmarks" / "sides" / "parse_files.py", count, *files)],
        env=environ,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    laps = json.loads(done.stdout.splitlines()[-1])
    return [[Look(*lap) for lap in laps[str(file)]] for file in files]


def _installed(folder: Path) -> dict[str, str]:
    """Install this checkout's wheel into a folder, and return the variables of a process that imports it from there."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    command = ["pip", "install", "--quiet", "--compile-bytecode", "--no-deps", "--python", AIRFLOW_PYTHON]
    subprocess.run([ROOT / ".venv/bin/uv", *command, "--target", site, wheel], check=True)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environ | {"AIRFLOW_HOME": str(folder / "home"), "PYTHONPATH": str(site)}


def _files(folder: Path, environ: dict[str, str]) -> tuple[Path, Path]:
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, folder / "exported"],
        env=environ | {"PYTHONPATH": str(ROOT / "examples")},
        check=True,
        capture_output=True,
        text=True,
    )
    exported = Path(done.stdout.strip())
    plain = folder / "plain" / exported.name
    plain.parent.mkdir()
    plain.write_text(without_callbacks(exported.read_text()))
    return exported, plain
