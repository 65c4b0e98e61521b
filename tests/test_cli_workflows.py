"""
Tests of `dkist-core workflows`, run as a user does: in a separate process, in the folder of a pipeline.

Not here: checking and exporting (test_build_utils), and the drawing (test_workflow_drawing).
"""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core import Workflow
from dkist_processing_core.cli.draw.mermaid import flowchart
from tests import pipelines
from tests.clients import TASKS, module, workflow, write_package
from tests.running import ROOT
from tests.running import run_command as run

HAS_ENGINE = find_spec("airflow") is not None
CHECKED = f"no cycle, exports, compiles{', loads' if HAS_ENGINE else ''}"
NOT_LOADED = (
    ""
    if HAS_ENGINE
    else "not loaded: Airflow is not installed here; install dkist-processing-core[airflow] to check this\n"
)


def workflows(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """
    Run one of the commands in a folder.
    """
    return run("workflows", *arguments, cwd=cwd, **environment)


# Checking


def test_each_valid_workflow_has_its_line(tmp_path: Path) -> None:
    """
    It names the workflow, its version, the number of its tasks and the checks; no file is written.
    """
    write_package(tmp_path, {"a.py": module("a", "b")})
    before = sorted(tmp_path.rglob("*.py"))

    told = workflows("validate", "scratch", cwd=tmp_path)

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == (f"✓ scratch_a 1.0, 2 tasks: {CHECKED}\n✓ scratch_b 1.0, 2 tasks: {CHECKED}\n{NOT_LOADED}")
    assert sorted(tmp_path.rglob("*.py")) == before


def test_what_is_wrong_stands_below_its_workflow(tmp_path: Path) -> None:
    """
    The others are still checked, and the exit code states that there is an error.
    """
    write_package(
        tmp_path,
        {"a.py": TASKS + workflow("script", package="None"), "b.py": module("Good"), "c.py": module("good")},
    )

    told = workflows("validate", "scratch", cwd=tmp_path)

    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert [line[0] for line in lines[:5]] == ["✗", " ", "✓", "✗", " "]
    assert lines[0] == "✗ scratch_script 1.0, 2 tasks"
    assert lines[1].startswith("  scratch.a: scratch_script 1.0: ")
    assert lines[3] == "✗ scratch_good 1.0, 2 tasks"
    assert lines[4].startswith(
        "  scratch.c: scratch_good 1.0 would overwrite the file of scratch.b: scratch_Good 1.0; give "
        "one of them another name"
    )


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    """
    Marks and strokes have simpler forms there.
    """
    plain: dict[str, Any] = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    write_package(tmp_path, {"a.py": module("a")})

    checked = workflows("validate", "scratch", cwd=tmp_path, **plain)
    drawn = workflows("show", "scratch", cwd=tmp_path, **plain)

    assert checked.stdout.startswith("+ scratch_a 1.0, 2 tasks: no cycle")
    assert drawn.stdout.splitlines()[2:] == ["o  First   default", "o  Second  default"]


@pytest.mark.parametrize("command", ["validate", "export", "show"])
def test_a_package_without_workflows_is_an_error(command: str, tmp_path: Path) -> None:
    """
    The message names the searched package, and the probable one.
    """
    write_package(tmp_path, {"workflows/__init__.py": "", "tasks.py": TASKS})

    told = workflows(command, "scratch", cwd=tmp_path)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == (
        "error: scratch defines no workflow; searched: scratch.tasks, scratch; "
        "subpackages are not searched: did you mean scratch.workflows?\n"
    )


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("nowhere", "there is no package 'nowhere': neither in the current folder ("),
        ("nowhere.inside", "there is no package 'nowhere': neither"),
        ("scratch.nowhere", "there is no package 'scratch.nowhere': neither"),
        ("scratch.a.b", "scratch.a is a module, not a package: it has no 'b' inside"),
        ("scratch/a.py", "found 'scratch/a.py', expected the name of a package, for example my_pipeline.workflows"),
    ],
)
def test_a_mistyped_package_is_a_usage_error(package: str, expected: str, tmp_path: Path) -> None:
    """
    The message states what was searched, and where.
    """
    write_package(tmp_path, {"a.py": module("a")})

    told = workflows("validate", package, cwd=tmp_path)

    assert told.returncode == 2
    # A message that is wrapped to the width of the terminal is the same message.
    assert expected in " ".join(told.stderr.replace("│", " ").split())


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    """
    The traceback is only shown on request.
    """
    write_package(tmp_path, {"a.py": "import not_there\n"})

    told = workflows("validate", "scratch", cwd=tmp_path)
    debugged = run("--debug", "workflows", "validate", "scratch", cwd=tmp_path)

    assert (told.returncode, debugged.returncode) == (1, 1)
    assert told.stderr == ("error: scratch.a cannot be imported: ModuleNotFoundError: No module named 'not_there'\n")
    assert "import not_there" in debugged.stderr


# Exporting


def test_the_files_that_were_written_are_printed(tmp_path: Path) -> None:
    """
    By default they are in `dags`; a script can use their names.
    """
    write_package(tmp_path, {"a.py": module("b", "a")})

    told = workflows("export", "scratch", cwd=tmp_path)

    assert (told.returncode, told.stdout) == (0, "dags/scratch_b_1.0.py\ndags/scratch_a_1.0.py\n")
    assert sorted(file.name for file in (tmp_path / "dags").iterdir()) == ["scratch_a_1.0.py", "scratch_b_1.0.py"]


def test_a_refused_export_leaves_no_file(tmp_path: Path) -> None:
    """
    The folder is not created either.
    """
    write_package(tmp_path, {"a.py": module("a") + workflow("script", variable="s", package="None")})

    told = workflows("export", "scratch", "--path", "new/dags", cwd=tmp_path)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("error: scratch.a: scratch_script 1.0: ")
    assert not (tmp_path / "new").exists()


def test_an_archive_is_one_file_with_the_version_in_its_name(tmp_path: Path) -> None:
    """
    A version given by BUILD_VERSION is that of the archive.
    """
    write_package(tmp_path, {"a.py": TASKS + workflow("a").replace(', workflow_version="1.0"', "")})

    told = workflows("export", "scratch", "--path", "out", "--zip", cwd=tmp_path, BUILD_VERSION="2.3.4")

    assert (told.returncode, told.stdout, told.stderr) == (0, "out/scratch_2.3.4.zip\n", "")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["scratch_2.3.4.zip"]
    with zipfile.ZipFile(tmp_path / "out" / "scratch_2.3.4.zip") as archive:
        assert archive.namelist() == ["scratch_2.3.4/scratch_a_2.3.4.py"]


# Notebooks


def test_notebooks_are_written_with_the_image_that_serves_them(tmp_path: Path) -> None:
    """
    The written files are printed: the notebooks, by default in `notebooks`, or the Dockerfile that copies them.
    """
    write_package(tmp_path, {"a.py": module("b", "a")})

    told = workflows("notebooks", "scratch", cwd=tmp_path)
    image = workflows("notebooks", "scratch", "--path", "by-hand", "--dockerfile", cwd=tmp_path)

    assert (told.returncode, told.stdout) == (0, "notebooks/scratch_b_1.0.ipynb\nnotebooks/scratch_a_1.0.ipynb\n")
    listed = "by-hand/scratch_b_1.0.ipynb\nby-hand/scratch_a_1.0.ipynb\n"
    assert (image.returncode, image.stdout) == (0, f"Dockerfile\n{listed}")
    assert sorted(file.name for file in (tmp_path / "by-hand").iterdir()) == [
        "scratch_a_1.0.ipynb",
        "scratch_b_1.0.ipynb",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["notebooks", "scratch", "--path", "..", "--dockerfile"],
            "error: found the folder ",
        ),
        (["notebooks", "scratch.empty"], "error: scratch.empty defines no workflow; searched: scratch.empty\n"),
    ],
)
def test_notebooks_that_cannot_be_written_are_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    """
    No file is written.
    """
    write_package(tmp_path, {"a.py": module("a"), "empty/__init__.py": ""})

    told = workflows(*arguments, cwd=tmp_path)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(complaint)
    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


# Drawing


def test_the_example_is_drawn() -> None:
    """
    The drawing shows which task waits for which.
    """
    told = workflows("show", "solar_calibration", cwd=ROOT, PYTHONPATH=str(ROOT / "examples"))

    assert told.returncode == 0
    assert told.stdout == (
        "raw_to_l1_solar_calibration dev  8 tasks, 9 edges\n"
        "\n"
        "●      ParseFrames         default\n"
        "├─●    EstimateBackground  default\n"
        "●─┤    EstimateFlat        default\n"
        "  ●    CorrectFrames       default\n"
        "  ├─●  FitLimb             default\n"
        "  │ ●  AlignFrames         high_memory\n"
        "  ●─┤  MeasureQuality      default\n"
        "╭───╯\n"
        "●      MakeContactSheet    default\n"
    )


def test_one_workflow_is_drawn_by_its_name(tmp_path: Path) -> None:
    """
    With its version or without; for another name the message lists the existing ones.
    """
    write_package(tmp_path, {"a.py": module("a", "b")})

    both = workflows("show", "scratch", cwd=tmp_path)
    one = workflows("show", "scratch", "--workflow", "scratch_b", cwd=tmp_path)
    same = workflows("show", "scratch", "--workflow", "scratch_b_1.0", cwd=tmp_path)
    none = workflows("show", "scratch", "--workflow", "c", cwd=tmp_path)

    assert both.stdout.count("2 tasks, 1 edge") == 2
    assert one.stdout.splitlines()[0] == "scratch_b 1.0  2 tasks, 1 edge"
    assert one.stdout == same.stdout
    assert none.returncode == 2
    assert "scratch has no workflow 'c'; it has scratch_a, scratch_b" in none.stderr


def test_a_flowchart_holds_each_task_and_each_edge(tmp_path: Path) -> None:
    """
    Each workflow is a separate box, so tasks with equal names do not collide.
    """
    write_package(tmp_path, {"a.py": module("a")})

    told = workflows("show", "scratch", "--mermaid", cwd=tmp_path)

    assert told.stdout.splitlines() == [
        "flowchart TD",
        '  subgraph w1["scratch_a 1.0"]',
        '    w1n1["First"]',
        '    w1n2["Second"]',
        "    w1n1 --> w1n2",
        "  end",
    ]


def test_what_a_label_holds_means_nothing_to_mermaid() -> None:
    """
    An extra with quotes, tags or semicolons stays a text between quotes.
    """
    made = Workflow(process_category="a", process_name="b", workflow_package="p", workflow_version="1")
    made.add_node(pipelines.First, resource_queue="gpu")
    # Created without the checks, which would refuse such a name.
    object.__setattr__(made.nodes[0], "pip_extras", ('x"]; <b>#end`',))

    lines = list(flowchart([made]))

    assert lines[2] == '    w1n1["First<br/>gpu #91;x#34;#93;#59; #60;b#62;#35;end#96;#93;"]'


def test_help_does_not_load_the_library() -> None:
    """
    Help is shown without loading pydantic.
    """
    probe = "import sys; import dkist_processing_core.cli.workflows.commands; print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

    loaded = subprocess.run(
        [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"pydantic", "rich.console", "dkist_processing_core.workflow"}.isdisjoint(loaded)
