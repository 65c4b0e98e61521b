"""
Log records of a task, where no other code has configured logging: they are shown, unless the author has configured it.

Not here: exported log records (test_tracing).
"""

import os
from pathlib import Path

import pytest

from tests.clients import write_package
from tests.running import ROOT, run_command, run_python

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
FORM_ALONE = "logging.basicConfig(format='own %(message)s')"
AT_IMPORT = "logging.getLogger('speaks').info('gain: 3')"


@pytest.mark.parametrize(
    ("set_up", "lines"),
    [
        ("", [" INFO speaks: read 4 frames"]),
        (OWN, ["| own read 4 frames", "| own in detail"]),
        (OF_ONE_LOGGER, ["| one read 4 frames"]),
        (QUIET, []),
        (FORM_ALONE, []),
        (AT_IMPORT, [" INFO speaks: gain: 3", " INFO speaks: read 4 frames"]),
    ],
    ids=["as it is", "set up by its author", "a logger of its own", "quieter", "a form alone", "while it is loaded"],
)
def test_what_a_task_logs_is_shown(set_up: str, lines: list[str], tmp_path: Path) -> None:
    """
    From INFO on, each record is shown once, with time and logger. A configuration by the task's modules stays
    unchanged.
    """
    write_package(tmp_path, {"a.py": TASK.format(set_up=set_up)})

    told = run_command("run", "scratch.a:workflow", "--recipe-run-id", "1", cwd=tmp_path)

    shown = [line for line in told.stdout.splitlines() if line.startswith("Speaks | ")]
    assert told.returncode == 0
    assert len(shown) == len(lines)
    assert all(line in each for line, each in zip(lines, shown, strict=True))


BY_HAND = """
import logging
from scratch.a import Speaks

def set_up():
    return [logging.root.level, logging.root.handlers, logging.lastResort.level, logging.lastResort.formatter]

before = set_up()
Speaks(recipe_run_id=1, workflow_name="w", workflow_version="1")()
assert set_up() == before, set_up()
logging.getLogger("speaks").info("afterwards")
"""


@pytest.mark.parametrize(
    ("set_up", "lines"),
    [("", [" INFO speaks: read 4 frames"]), (OWN, ["own read 4 frames", "own in detail"]), (QUIET, [])],
    ids=["as it is", "set up by its author", "quieter"],
)
def test_what_a_task_logs_that_is_called_by_hand_is_shown_meanwhile(
    set_up: str, lines: list[str], tmp_path: Path
) -> None:
    """
    The records are shown as in 7.x. Before and after the call, logging is unchanged.
    """
    write_package(tmp_path, {"a.py": TASK.format(set_up=set_up)})

    told = run_python(BY_HAND, {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})

    shown = [line for line in told.stderr.splitlines() if "frames" in line or "detail" in line]
    assert told.returncode == 0, told.stderr
    assert len(shown) == len(lines)
    assert all(line in each for line, each in zip(lines, shown, strict=True))
    assert "afterwards" not in told.stderr or set_up == OWN


SETS_UP = """
import logging, threading
from dkist_processing_core import TaskBase

both = threading.Barrier(2)

class SetsUp(TaskBase):
    def run(self):
        both.wait(20)
        logging.basicConfig(level="INFO", format="own %(message)s")
        logging.getLogger("speaks").info("read %s frames", 4)

tasks = [SetsUp(recipe_run_id=1, workflow_name="w", workflow_version="1") for _ in range(2)]
threads = [threading.Thread(target=task) for task in tasks]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
logging.getLogger("speaks").info("afterwards")
assert logging.lastResort.level == logging.WARNING
"""


def test_what_a_task_sets_up_itself_stays() -> None:
    """
    This holds even if two tasks are called at the same time.
    """
    told = run_python(SETS_UP, {})

    shown = [line for line in told.stderr.splitlines() if "frames" in line or "afterwards" in line]
    assert told.returncode == 0, told.stderr
    assert shown == ["own read 4 frames", "own read 4 frames", "own afterwards"]
