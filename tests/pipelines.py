"""
Workflows for tests that run them: importable, so that each task can run in a separate process.
"""

import atexit
import json
import os
import sys
from pathlib import Path

from dkist_processing_core import TaskBase, Workflow
from dkist_processing_core.notebook_utils import export_notebook_by_path, wait_for_notebook_save
from dkist_processing_core.workflow import dag_name


class First(TaskBase):
    """
    Prints a line, and reports progress.
    """

    def run(self) -> None:
        """
        Print a line, and report progress in a span.
        """
        print(f"first of {self.recipe_run_id} in {os.getpid()}")  # noqa: T201 - read by a test
        with self.telemetry_span("own step"):
            self.progress(1, 2, "step", "half way")


class Left(TaskBase):
    """
    One branch.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class Right(TaskBase):
    """
    The other branch, which fails if PIPELINES_FAIL is set: always, or in as many attempts as it states.
    """

    retries = 1
    retry_delay_seconds = 0

    def run(self) -> None:
        """
        Raise an exception in the requested attempts.
        """
        wanted = os.environ.get("PIPELINES_FAIL", "")
        count_file = Path(os.environ.get("PIPELINES_FOLDER", ".")) / "attempts"
        if wanted == "always":
            raise ArithmeticError("wanted")
        if wanted:
            attempts = int(count_file.read_text()) if count_file.exists() else 0
            count_file.write_text(str(attempts + 1))
            if attempts < int(wanted):
                raise ArithmeticError("wanted")


class Last(TaskBase):
    """
    Joins the branches.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class Loaded(TaskBase):
    """
    Writes the names of the imported modules to a file when its process exits.
    """

    def run(self) -> None:
        """
        Register the function that writes them.
        """
        atexit.register(lambda: Path(os.environ["LOADED_FILE"]).write_text(json.dumps(list(sys.modules))))


class Endless(TaskBase):
    """
    Prints a line, and waits until it is terminated.
    """

    def run(self) -> None:
        """
        Wait without an end.
        """
        print("waiting", flush=True)  # noqa: T201 - read by a test
        read_end, _ = os.pipe()
        os.read(read_end, 1)


class Killed(TaskBase):
    """
    Is killed during `run`.
    """

    def run(self) -> None:
        """
        Kill this process.
        """
        os.kill(os.getpid(), 9)


diamond = Workflow(process_category="test", process_name="diamond", workflow_package=__package__, workflow_version="1")
diamond.add_node(First)
diamond.add_node(Left, upstreams=First)
diamond.add_node(Right, upstreams=First)
diamond.add_node(Last, upstreams=[Left, Right])

endless = Workflow(process_category="test", process_name="endless", workflow_package=__package__, workflow_version="1")
endless.add_node(Endless)
endless.add_node(Last, upstreams=Endless)

killed = Workflow(process_category="test", process_name="killed", workflow_package=__package__, workflow_version="1")
killed.add_node(Killed)
killed.add_node(Last, upstreams=Killed)

loaded = Workflow(process_category="test", process_name="loaded", workflow_package=__package__, workflow_version="1")
loaded.add_node(Loaded)


class KeepsNotebook(TaskBase):
    """
    Keeps the notebook that it runs in, as pipelines do that are processed by hand.
    """

    def run(self) -> None:
        """
        Print a line.
        """
        print(f"kept for {self.recipe_run_id}")  # noqa: T201 - read by a test

    def post_run(self) -> None:
        """
        Wait until the notebook is saved with that line, and export the notebook to a file.
        """
        super().post_run()
        notebook = Path.cwd() / f"{dag_name(self.workflow_name, self.workflow_version)}.ipynb"
        wait_for_notebook_save(notebook_path=notebook, attempts=400, delay_s=0.05)
        Path("record.md").write_bytes(export_notebook_by_path(notebook_path=notebook))


kept = Workflow(process_category="test", process_name="kept", workflow_package=__package__, workflow_version="1")
kept.add_node(KeepsNotebook)
