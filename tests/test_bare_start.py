"""
Processes of the library that start without standard streams, or as the first process of a container. Not here: lost
exit statuses (test_lost_status.py).
"""

import subprocess
import sys
from pathlib import Path

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.runs import State
from tests.running import ROOT, command
from tests.test_faults import environ_of, the_attempt

LAUNCHER = (sys.executable, "-m", "dkist_processing_core.launcher")
CLOSED = ("/bin/bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash")
# PR_SET_CHILD_SUBREAPER of prctl(2), which survives exec: like process 1, this process gets the orphans of its
# descendants.
REAPING = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])",
)
LIMIT_SECONDS = 200


def run(*arguments: str, task: str = "", **variables: str) -> int:
    """
    Run a program to its end, and return its status.
    """
    environ = environ_of(task, **variables)
    return subprocess.run(arguments, cwd=ROOT, env=environ, check=False, timeout=LIMIT_SECONDS).returncode


def test_a_launcher_without_standard_streams_gives_its_task_empty_ones(tmp_path: Path) -> None:
    """
    The task does not take a pipe of the launcher for its streams, and its output there is not a report.
    """
    status = run(*CLOSED, *LAUNCHER, task="LiesOnItsStreams", FAULT_MARKS=str(tmp_path))

    assert (tmp_path / "descriptors").read_text().split() == ["/dev/null"] * 3
    assert (status, the_attempt("LiesOnItsStreams").cause) == (1, "exit_code")


def test_a_run_without_standard_streams_goes_on_as_any(tmp_path: Path) -> None:
    """
    The command line has no output, and its exit code states how the run ended.
    """
    status = run(*CLOSED, *command("run", "tests.launched:liars", "--recipe-run-id", "1"), FAULT_MARKS=str(tmp_path))

    (view,) = RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs
    assert (status, view.state) == (1, State.FAILED)
    assert view.tasks[0].attempts[0].cause == "exit_code"


def test_a_launcher_that_gets_the_orphans_of_its_task_reaps_them_meanwhile() -> None:
    """
    None stays a zombie while the task runs, and the task's own status is not lost when theirs are read.
    """
    status = run(*REAPING, *LAUNCHER, task="LeavesOrphans")

    assert (status, the_attempt("LeavesOrphans").cause) == (3, "exit_code")
