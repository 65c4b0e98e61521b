"""
The pipeline file for repositories of workflows: its commands are run in such a repository.

Not here: the behaviour of `dkist-core workflows` (test_cli_workflows).
"""

import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.clients import TASKS, project, workflow, write_package
from tests.running import ROOT

FILE = ROOT / "config" / "pipeline" / "bitbucket-pipelines.yml"
PACKAGE = "my_pipeline"
TEST = """
from dkist_processing_core.build_utils import validate_workflows

from my_pipeline import workflows


def test_workflows() -> None:
    validate_workflows(workflows)
"""


def commands(step: str, text: str | None = None) -> list[str]:
    """
    Return the commands of a step of the file.
    """
    found = re.search(rf"- step: &{step}\n((?: {{8}}.*\n)+)", FILE.read_text() if text is None else text)
    assert found, f"{FILE.name} has no step {step}"
    script = found[1].partition("        script:\n")[2]
    return re.findall(r"^ {10}- (.*)$", script.partition("        artifacts:")[0], flags=re.MULTILINE)


def artifacts(step: str) -> list[str]:
    """
    Return the patterns of the files that a step keeps.
    """
    found = re.search(rf"- step: &{step}\n((?: {{8}}.*\n)+)", FILE.read_text())
    assert found, f"{FILE.name} has no step {step}"
    return re.findall(r"^ {10}- (.*)$", found[1].partition("        artifacts:\n")[2], flags=re.MULTILINE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """
    A client's repository: a workflow, and one test.
    """
    folder = tmp_path / "repository"
    versioned = workflow("calibration").replace(', workflow_version="1.0"', "")
    write_package(folder, {"workflows/__init__.py": "", "workflows/l0.py": TASKS + versioned}, name=PACKAGE)
    (folder / "pyproject.toml").write_text(project(PACKAGE, "1.2.3", test="pytest"))
    (folder / "tests").mkdir()
    (folder / "tests" / "test_workflows.py").write_text(TEST)
    return folder


@pytest.fixture
def python_folder(tmp_path: Path) -> Path:
    """
    Return the programs of a separate environment that contains the packages installed here, so that nothing is
    downloaded.
    """
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=300)
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    here = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(ROOT)]
    # Added as a separate site folder, so that its `.pth` files are read, too.
    (packages / "here.pth").write_text("".join(f"import site; site.addsitedir({each!r})\n" for each in here))
    program = environment / "bin" / "dkist-core"
    # Its interpreter's path may have a blank, which a first line cannot have.
    program.write_text("#!/usr/bin/env python\nfrom dkist_processing_core.cli import main\n\nmain()\n")
    program.chmod(0o755)
    return environment / "bin"


def run_step(step: str, repository: Path, python_folder: Path, **variables: str) -> str:
    """
    Run a step as Bitbucket does: its commands in sequence in one shell, until one fails.
    """
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join(["set -e", *commands(step)])],
        cwd=repository,
        env={
            "PATH": f"{python_folder}:/usr/bin:/bin",
            "HOME": str(repository.parent),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_steps_lead_from_a_repository_to_an_archive(repository: Path, python_folder: Path) -> None:
    """
    A tag is tested, drawn and exported. The step keeps one archive with the tag's version, which contains the DAG.
    """
    tag = {"BITBUCKET_TAG": "v1.2.3"}

    tested = run_step("test", repository, python_folder, **tag)
    exported = run_step("export", repository, python_folder, **tag)

    assert "1 passed" in tested
    assert "✓ scratch_calibration dev, 2 tasks: " in tested
    assert "●  Second  default" in exported
    (pattern,) = artifacts("export")
    (archive,) = repository.glob(pattern)
    assert archive.name == "my_pipeline.workflows_1.2.3.zip"
    with zipfile.ZipFile(archive) as opened:
        (name,) = opened.namelist()
        assert name == "my_pipeline.workflows_1.2.3/scratch_calibration_1.2.3.py"
        assert "dag_id='scratch_calibration_1.2.3'" in opened.read(name).decode()


def test_a_broken_workflow_stops_the_pipeline(repository: Path, python_folder: Path) -> None:
    """
    A broken workflow is not exported.
    """
    (repository / PACKAGE / "workflows" / "l0.py").write_text(TASKS + workflow("calibration", package="None"))

    with pytest.raises(AssertionError, match="scratch_calibration"):
        run_step("export", repository, python_folder, BITBUCKET_TAG="v1.2.3")

    assert not (repository / "build").exists()


def test_a_tag_is_tested_before_it_is_exported() -> None:
    """
    The steps of a tag are those that the test runs, and a push runs the first of them.
    """
    pipelines = FILE.read_text().partition("\npipelines:\n")[2]

    assert re.findall(r"- step: \*(\w+)", pipelines) == ["test", "test", "export"]
    assert commands("test")[1:] == ["python -m pytest", "dkist-core workflows validate my_pipeline.workflows"]
