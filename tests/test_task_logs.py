"""
What a task logs in a process of its own: shown, unless its author has other plans.

Not here: log records that are exported (test_tracing).
"""

from pathlib import Path

import pytest

from tests.clients import write_package
from tests.running import run_command

TASK = """
import logging

from dkist_processing_core import TaskBase, Workflow

{set_up}


class Speaks(TaskBase):
    def run(self) -> None:
        logging.getLogger("speaks").info("read %s frames", 4)
        logging.getLogger("speaks").debug("in detail")


workflow = Workflow(process_category="scratch", process_name="speaks", workflow_package=__package__)
workflow.add_node(Speaks)
"""
OWN = """
if not logging.root.handlers:
    logging.basicConfig(level=logging.DEBUG, format="own %(message)s")
"""
OF_ONE_LOGGER = """
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("one %(message)s"))
logging.getLogger("speaks").addHandler(handler)
"""
QUIET = "logging.getLogger().setLevel(logging.ERROR)"


@pytest.mark.parametrize(
    ("set_up", "lines"),
    [
        ("", [" INFO speaks: read 4 frames"]),
        (OWN, ["| own read 4 frames", "| own in detail"]),
        (OF_ONE_LOGGER, ["| one read 4 frames"]),
        (QUIET, []),
    ],
    ids=["as it is", "set up by its author", "a logger of its own", "quieter"],
)
def test_what_a_task_logs_is_shown(set_up: str, lines: list[str], tmp_path: Path) -> None:
    """
    From INFO on, with time and logger, and once; what the task's modules have set up is not disturbed.
    """
    write_package(tmp_path, {"a.py": TASK.format(set_up=set_up)})

    told = run_command("run", "scratch.a:workflow", "--recipe-run-id", "1", cwd=tmp_path)

    shown = [line for line in told.stdout.splitlines() if line.startswith("Speaks | ")]
    assert told.returncode == 0
    assert len(shown) == len(lines)
    assert all(line in each for line, each in zip(lines, shown, strict=True))
