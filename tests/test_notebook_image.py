"""
The image for processing by hand: the content of its Dockerfile, and the result of its instructions.

No engine for images is needed: the file is parsed, and its commands are run in sequence in a scratch environment. Not
here: the notebooks themselves (test_notebook).
"""

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.build_utils import export_notebook_dockerfile, export_notebooks
from dkist_processing_core.errors import WorkflowError
from tests.clients import TASKS, importing, project, workflow, write_package
from tests.running import ROOT
from tests.services.sockets import free_ports
from tests.waiting import SECONDS, wait_until

PACKAGE = "my_pipeline"
WITH_EXTRAS = workflow("calibration").replace(
    "add_node(First)", 'add_node(First, pip_extras=["colour"])\nworkflow.add_node(Third)'
)
THIRD = "class Third(First):\n    pass\n"
SAVES_OFTEN = (
    """echo '{"@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 10}}' """
    "> /etc/jupyter/labconfig/default_setting_overrides.json"
)
SERVES = (
    '["jupyter", "lab", "--allow-root", "--no-browser", "--ServerApp.ip=0.0.0.0", "--ServerApp.port=8888", '
    '"--ServerApp.base_url=/mpw-scratch/", "--ServerApp.root_dir=/notebooks", '
    '"--MappingKernelManager.cull_idle_timeout=300"]'
)
DRAWN = ("/app", "/notebooks", "/etc")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """
    A client's repository as the current folder; yields its package of workflows.
    """
    folder = tmp_path / "repository"
    write_package(folder, {"workflows/__init__.py": "", "workflows/l0.py": TASKS + THIRD + WITH_EXTRAS}, name=PACKAGE)
    (folder / "pyproject.toml").write_text(project(PACKAGE, "1.0", colour="colorama"))
    monkeypatch.chdir(folder)
    with importing(folder, f"{PACKAGE}.workflows") as package:
        yield package


def written_in(folder: Path) -> list[Path]:
    """
    Return the files of a folder, except the bytecode that an import leaves.
    """
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def instructions(file: Path) -> list[tuple[str, str]]:
    """
    Return the instructions of a Dockerfile, read by an independent parser.
    """
    parser = DockerfileParser(path=str(file), env_replace=False)
    return [(each["instruction"], each["value"]) for each in parser.structure if each["instruction"] != "COMMENT"]


# The Dockerfile


def test_the_dockerfile_is_this_one(repository: Any) -> None:
    """
    The Dockerfile installs the exporting Python's version, the package with all extras of its tasks, its notebooks, and
    JupyterLab.
    """
    file = export_notebook_dockerfile(repository, "notebooks")

    assert file == Path("Dockerfile")
    assert instructions(file) == [
        ("FROM", f"python:{sys.version_info.major}.{sys.version_info.minor}"),
        ("ENV", "LANG=C.UTF-8"),
        ("ENV", "IS_NOTEBOOK_EXECUTION_ENVIRONMENT=true"),
        ("COPY", ". /app"),
        ("WORKDIR", "/app"),
        ("RUN", "python -m pip install --upgrade pip"),
        ("RUN", "python -m pip install '.[colour]'"),
        ("RUN", f"python -m pip install 'dkist-processing-core[notebook]>={version('dkist-processing-core')}'"),
        ("RUN", "mkdir -p /etc/jupyter/labconfig"),
        ("RUN", SAVES_OFTEN),
        ("COPY", '["notebooks/scratch_calibration_1.0.ipynb", "/notebooks/"]'),
        ("EXPOSE", "8888"),
        ("CMD", SERVES),
    ]


@pytest.mark.parametrize(("path", "folder"), [("by hand/it", "by hand/it/"), (".", ""), ("a/..", "")])
def test_a_notebook_is_copied_from_where_it_is(path: str, folder: str, repository: Any) -> None:
    """
    The folder may be nested, have any name, be an absolute path, or be the project's folder.
    """
    export_notebook_dockerfile(repository, Path.cwd() / path)

    copied = [
        json.loads(value)[0] for name, value in instructions(Path("Dockerfile")) if value.endswith('/notebooks/"]')
    ]
    assert copied == [f"{folder}scratch_calibration_1.0.ipynb"]
    assert Path(copied[0]).exists()


@pytest.mark.parametrize("path", ["../notebooks", "/tmp", "a/../..", "link"])
def test_notebooks_outside_of_the_project_are_refused(path: str, repository: Any, tmp_path: Path) -> None:
    """
    An image is built from one folder, so a path that leads outside is refused; nothing is written.
    """
    Path("link").symlink_to(tmp_path)
    before = written_in(tmp_path)

    with pytest.raises(
        WorkflowError, match=r"^found the folder .*/repository, where the image is built, or a folder b"
    ):
        export_notebook_dockerfile(repository, path)

    assert written_in(tmp_path) == before


def test_a_folder_that_would_be_a_pattern_is_refused(repository: Any) -> None:
    """
    `COPY` would interpret the name as a pattern.
    """
    with pytest.raises(
        WorkflowError, match=r"^the folder 'run\[1\]' cannot be named in a Dockerfile: it contains '\[', '"
    ):
        export_notebook_dockerfile(repository, "run[1]")


def test_nothing_is_written_over(repository: Any) -> None:
    """
    A Dockerfile or a changed notebook is kept. A refused export writes nothing.
    """
    Path("Dockerfile").write_text("FROM mine\n")
    with pytest.raises(WorkflowError, match=r"^there is a Dockerfile in .*/repository already, which is not overwritt"):
        export_notebook_dockerfile(repository, "notebooks")
    assert not Path("notebooks").exists()
    assert Path("Dockerfile").read_text() == "FROM mine\n"
    Path("Dockerfile").unlink()
    (notebook,) = export_notebooks(repository, "notebooks")
    notebook.write_text(notebook.read_text().replace("recipe_run_id: int =", "recipe_run_id: int = 1"))

    with pytest.raises(
        WorkflowError, match=r"^not overwritten, since it was changed or run after its export: notebooks/scratch"
    ):
        export_notebook_dockerfile(repository, "notebooks")

    assert not Path("Dockerfile").exists()


def test_a_worker_is_for_one_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The error lists the categories. A package without workflows is refused, too.
    """
    monkeypatch.chdir(tmp_path)
    other = workflow("b", variable="other").replace('"scratch"', '"another"')
    write_package(tmp_path, {"a.py": TASKS + workflow("a") + other, "nothing/__init__.py": ""})

    with importing(tmp_path) as package:
        with pytest.raises(
            WorkflowError, match=r"for one category, and scratch defines .* categories: another, scratch$"
        ):
            export_notebook_dockerfile(package, "notebooks")
        with (
            importing(tmp_path, "scratch.nothing") as nothing,
            pytest.raises(WorkflowError, match=r", and scratch\.nothing defines no workflow$"),
        ):
            export_notebook_dockerfile(nothing, "notebooks")

    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


def test_a_folder_without_a_project_is_told(repository: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    A warning is logged, since the image cannot be built there.
    """
    Path("pyproject.toml").unlink()

    export_notebook_dockerfile(repository, "notebooks")

    assert [record.getMessage() for record in caplog.records] == [
        f"{Path.cwd()} is not the folder of a project: `pip install .` will fail in the image"
    ]


# The image


class Scratch:
    """
    A folder in place of an image's file system, and a virtual environment in place of its Python.
    """

    def __init__(self, folder: Path, wheels: Path) -> None:
        """
        Create both; pip finds this checkout's wheel.
        """
        self.root, self.cwd = folder / "root", folder / "root"
        self.root.mkdir()
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        kept = {name: value for name, value in os.environ.items() if name in {"HOME", "PIP_INDEX_URL", "SSL_CERT_FILE"}}
        self.environ = kept | {name: value for name, value in os.environ.items() if name.startswith("DKIST_CORE_")}
        self.environ |= {
            "PATH": f"{folder / 'venv/bin'}:/usr/bin:/bin",
            "PIP_FIND_LINKS": wheels.as_uri(),
            "JUPYTER_CONFIG_PATH": str(self.root / "etc/jupyter"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "IPYTHONDIR": str(folder / "ipython"),
        }

    def placed(self, text: str, *, in_shell: bool = False) -> str:
        """
        Return a text in which the image's paths are replaced by those of this folder.
        """
        root = shlex.quote(str(self.root)) if in_shell else self.root
        return re.sub(rf"(?<![\w/])({'|'.join(DRAWN)})(?![\w-])", lambda found: f"{root}{found[1]}", text)

    def execute(self, instruction: str, value: str) -> None:
        """
        Carry out an instruction, as an engine for images would.
        """
        match instruction:
            case "ENV":
                name, _, content = value.partition("=")
                self.environ[name] = content
            case "WORKDIR":
                self.cwd = Path(self.placed(value))
            case "COPY":
                source, target = json.loads(value) if value.startswith("[") else value.split()
                place = Path(self.placed(target))
                place.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-r", f"{source}/." if source == "." else source, place], check=True)
            case "RUN":
                command = ["/bin/sh", "-c", self.placed(value, in_shell=True)]
                done = subprocess.run(
                    command, cwd=self.cwd, env=self.environ, capture_output=True, text=True, check=False, timeout=400
                )
                assert done.returncode == 0, done.stderr

    @contextmanager
    def serving(self, command: list[str]) -> Iterator[str]:
        """
        Run the image's command on a loopback port, and yield the address of the server.
        """
        (port,), token = free_ports(1), secrets.token_hex(8)
        placed = [self.placed(word).replace("=0.0.0.0", "=127.0.0.1").replace("8888", str(port)) for word in command]
        placed[0] = str(Path(self.environ["PATH"].split(":")[0]) / placed[0])
        with subprocess.Popen(
            [*placed, f"--IdentityProvider.token={token}"],
            cwd=self.cwd,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield f"http://127.0.0.1:{port}/mpw-scratch/{{}}?token={token}"
            finally:
                process.terminate()


def answer(address: str) -> Any:
    """
    Return the server's answer, or None if it does not answer.
    """
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return json.load(response)
    except OSError:
        return None


def test_the_project_of_the_page_can_be_installed_beside_its_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The wheel contains the package, without the folders of notebooks beside it.
    """
    page = (ROOT / "docs" / "how-to" / "by-hand.md").read_text()
    monkeypatch.chdir(tmp_path)
    write_package(tmp_path, {"l0.py": TASKS}, name=PACKAGE)
    for folder in ("notebooks", "worker"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "l0_to_l1_my_pipeline_1.2.3.ipynb").touch()
    for line in re.findall(r"^\$ (printf .*)", page, re.MULTILINE):
        subprocess.run(["bash", "-c", line], check=True)

    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], check=True, capture_output=True)

    (wheel,) = (tmp_path / "dist").glob("my_pipeline-1.2.3-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {PACKAGE, "my_pipeline-1.2.3.dist-info"}


@pytest.mark.timeout(1800)
def test_the_image_serves_notebooks_whose_tasks_report(repository: Any, tmp_path: Path) -> None:
    """
    After all instructions, the server offers the notebook, saves it every ten seconds, and the tasks of the notebook
    report.
    """
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    scratch = Scratch(tmp_path, wheels)

    steps = instructions(export_notebook_dockerfile(repository, "notebooks"))
    for instruction, value in steps:
        scratch.execute(instruction, value)

    name = "scratch_calibration_1.0.ipynb"
    settings = "lab/api/settings/@jupyterlab/docmanager-extension:plugin"
    with scratch.serving(json.loads(steps[-1][1])) as address:
        wait_until(lambda: answer(address.format("api/status")) is not None, 60)
        contents = answer(address.format("api/contents"))
        saving = answer(address.format(settings))["schema"]["properties"]["autosaveInterval"]["default"]
    assert [each["name"] for each in contents["content"]] == [name]
    assert saving == 10
    notebook = scratch.root / "notebooks" / name
    notebook.write_text(notebook.read_text().replace("recipe_run_id: int =", "recipe_run_id: int = 9"))
    scratch.execute("RUN", f"jupyter nbconvert --to notebook --execute --inplace /notebooks/{name}")
    scratch.execute("RUN", "python -c 'import colorama'")

    with subscribe(replay=True, every_report=True, timeout=SECONDS) as reports:
        run = RunState([next(reports) for _ in range(6)]).runs[0]
    assert run.run.run_id.startswith("hand__9__")
    assert {task.name: task.state.value for task in run.tasks} == dict.fromkeys(
        ["First", "Second", "Third"], "finished"
    )
