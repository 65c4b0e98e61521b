"""
Notebooks of a published pipeline, written and run where it is installed.

Not here: the content of a notebook, and the reports of tasks from one (test_notebook).
"""

import json
from pathlib import Path

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.published.environments import Installed

EXPORT = """
import sys
from dkist_processing_test import workflows
from dkist_processing_core.build_utils import export_notebook_dockerfile
import nbformat
print(export_notebook_dockerfile(workflows, "notebooks"))
"""
NAME = "input_to_output_test_noop-flow_1.46.0.ipynb"


def test_notebooks_are_written_and_their_tasks_report(clients: Installed, tmp_path: Path, state_dir: Path) -> None:
    """
    All 32 are in an image's folder; one is filled in and executed, as a user would.
    """
    (tmp_path / "pyproject.toml").touch()
    written = clients.run("python", "-P", "-c", EXPORT, cwd=tmp_path, variables={"BUILD_VERSION": "1.46.0"})
    assert (written.returncode, written.stdout.splitlines()[-1]) == (0, "Dockerfile"), written.stderr[-4000:]
    notebooks = sorted((tmp_path / "notebooks").iterdir())
    notebook = tmp_path / "notebooks" / NAME
    content = json.loads(notebook.read_bytes())
    content["cells"][0]["source"][-1] += " 9"
    notebook.write_text(json.dumps(content))

    done = clients.run(
        *("jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", notebook),
        variables={"DKIST_CORE_STATE_DIR": str(state_dir)},
    )

    assert done.returncode == 0, done.stderr[-4000:]
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)
    (run,) = RunState(subscribe(settings=settings, replay=True, every_report=True, timeout=0.05)).runs
    assert len(notebooks) == 32
    assert 'COPY ["notebooks/' + NAME in (tmp_path / "Dockerfile").read_text()
    assert "'.[inventory,asdf,quality," in (tmp_path / "Dockerfile").read_text()
    assert run.run.run_id.startswith("hand__9__")
    assert {task.name: task.state.value for task in run.tasks} == {"NoOpTask": "finished", "NoOpTask2": "finished"}
