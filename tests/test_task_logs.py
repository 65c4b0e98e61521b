"""
Log records of a task, where no other code has configured logging: they are shown, unless the author has configured it.

Not here: exported log records (test_tracing).
"""

import json
import os
import subprocess
import sys
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


IN_JSON = """
import logging, sys
from dkist_processing_core import TaskBase, Workflow
logging.getLogger("module").warning("loaded with %s", "hunter2")
class Speaks(TaskBase):
    def run(self):
        logging.getLogger("speaks").info("two\\nlines", extra={"frame": 4})
        try:
            raise LookupError("by hunter2")
        except LookupError:
            logging.getLogger("speaks").exception("caught")
        with self.telemetry_span("own"):
            logging.getLogger("speaks").error("in own")
        raise ArithmeticError("at last, hunter2")
workflow = Workflow(process_category="scratch", process_name="speaks", workflow_package=__package__)
workflow.add_node(Speaks)
"""
IDENTITY = {"version": "dev", "recipe_run_id": 1, "task": "Speaks", "attempt": 1}


def test_the_log_of_a_run_is_json_where_it_is_requested(tmp_path: Path) -> None:
    """
    Each record is one object on one line, from the load of the module to the exception that ends the process.

    It has the run, the attempt and the span that it belongs to, and no secrets.
    """
    write_package(tmp_path, {"a.py": IN_JSON})

    told = run_command(
        *("run", "scratch.a:workflow", "--recipe-run-id", "1"),
        cwd=tmp_path,
        DKIST_CORE_LOG_FORMAT="json",
        A_SECRET="hunter2",
    )

    assert told.returncode == 1
    assert "hunter2" not in told.stdout + told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("WARNING", "module", "loaded with [redacted]"),
        ("INFO", "speaks", "two\nlines"),
        ("ERROR", "speaks", "caught"),
        ("ERROR", "speaks", "in own"),
        ("ERROR", "dkist_processing_core.logs.of_task", "Speaks has ended by ArithmeticError"),
    ]
    for line in lines:
        assert {name: line[name] for name in IDENTITY} == IDENTITY
        assert line["workflow"].endswith("speaks")
        assert line["run_id"].startswith("local__1__")
        assert line["time"].endswith("Z")
    assert len({line["trace_id"] for line in lines}) == 1
    attempt, phase, _, own, end = (line["span_id"] for line in lines)
    assert attempt == end
    assert len(attempt) == len(phase) == len(own) == 16
    assert [line["exception"].splitlines()[-1] for line in lines if "exception" in line] == [
        "LookupError: by [redacted]",
        "ArithmeticError: at last, [redacted]",
    ]


@pytest.mark.once
@pytest.mark.parametrize("variables", [{}, {"LAUNCHER": "1"}, {"BY_HAND": "1"}], ids=["command", "launcher", "by hand"])
def test_each_process_that_sets_up_its_log_writes_json(variables: dict[str, str], tmp_path: Path) -> None:
    """
    Also the errors of a command and of a launcher are lines of JSON.
    """
    environment = os.environ | {"DKIST_CORE_LOG_FORMAT": "json"}
    if "LAUNCHER" in variables:
        names = {"RUN_ID": "r1", "WORKFLOW": "W", "VERSION": "dev", "TASK": "T", "RECIPE_RUN_ID": "x"}
        environment |= {f"DKIST_CORE_{name}": value for name, value in names.items()}
        arguments = ["-m", "dkist_processing_core.launcher"]
    elif "BY_HAND" in variables:
        write_package(tmp_path, {"a.py": TASK.format(set_up="")})
        arguments = ["-c", "from scratch.a import Speaks; Speaks(3, 'W', '1')()"]
    else:
        environment |= {"EVENT_FLUSH_TIMEOUT": "soon"}
        arguments = ["-m", "dkist_processing_core.cli", "events", "list"]

    told = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert lines, told
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    if variables:
        assert {line["task"] for line in lines} == ({"T"} if "LAUNCHER" in variables else {"Speaks"})


@pytest.mark.once
def test_a_wrong_form_of_the_log_is_one_error() -> None:
    """
    It is readable, and names the variable, the value and what was expected.
    """
    told = run_command("events", "list", DKIST_CORE_LOG_FORMAT="xml")

    assert told.returncode == 1
    assert told.stderr.strip() == "error: DKIST_CORE_LOG_FORMAT: found 'xml', expected text or json"
