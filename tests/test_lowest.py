"""
The library works with the oldest releases of its dependencies that it declares. A long test, for `make soak` only.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core.consumer import subscribe
from tests.running import ROOT
from tests.services.broker import Broker

PROGRAM = """
from dkist_processing_core import TaskBase

class NoOp(TaskBase):
    def run(self):
        self.progress(1, 1)

with NoOp(recipe_run_id=1, workflow_name="lowest", workflow_version="1") as task:
    task()
"""


@pytest.mark.soak
def test_a_task_reports_with_the_oldest_releases_that_are_allowed(owned: Broker, tmp_path: Path) -> None:
    """
    The oldest releases are installed, as declared, and the events of a task arrive.
    """
    uv, virtualenv = Path(sys.executable).parent / "uv", tmp_path / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, virtualenv], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", virtualenv, "--resolution", "lowest-direct", ROOT]
    subprocess.run([str(word) for word in install], check=True)

    with subscribe("task.started", "task.finished", timeout=300) as events:
        subprocess.run(
            [virtualenv / "bin" / "python", "-c", PROGRAM], env=os.environ | owned.env, cwd=tmp_path, check=True
        )
        heard = [next(events).name, next(events).name]

    assert heard == ["task.started", "task.finished"]
