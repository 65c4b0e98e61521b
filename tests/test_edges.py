"""
Tasks that do unusual things under a launcher: each has one end with the correct cause, and no event is lost.

Not here: the usual ways to end (test_faults.py).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core.events import TaskFailed, TaskFinished
from tests.running import ROOT
from tests.test_faults import environ_of, journal_rows, launch, the_attempt

IN_EDGES = {"DKIST_CORE_TASK_MODULE": "tests.edges"}


@pytest.fixture(autouse=True)
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    The folder in which tasks leave their files.
    """
    monkeypatch.setenv("FAULT_MARKS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("task", ["LeavesWhenTold", "FailsWhenTold", "Computes", "RunsAnother"])
def test_a_task_with_a_termination_request_is_terminated_whatever_it_does_then(task: str) -> None:
    """
    Its own handler, its event loop and its own run release their resources, and the cause is `terminated`.
    """
    with launch(task, **IN_EDGES) as launcher:
        launcher.wait_for_line("waiting")
        launcher.process.terminate()
        assert launcher.wait() != 0

    attempt = the_attempt(task) if task != "RunsAnother" else None
    if attempt is not None:
        assert attempt.cause == "terminated"
        assert attempt.contradictions == ()
    if task in ("Computes", "RunsAnother"):
        assert "let go" in launcher.lines
    ends = [event for _, event in journal_rows() if isinstance(event, TaskFailed)]
    assert {event.cause for event in ends} == {"terminated"}


@pytest.mark.parametrize("task", ["CleansUp", "LeavesThread"])
def test_a_finished_task_is_not_failed_by_a_termination_request(task: str) -> None:
    """
    Its clean-up goes on to its end; only its remaining processes are ended.
    """
    with launch(task, **IN_EDGES) as launcher:
        launcher.wait_for_line("waiting")
        launcher.process.terminate()
        assert launcher.wait() == 0, launcher.lines

    attempt = the_attempt(task)
    assert isinstance(attempt.end, TaskFinished)
    assert attempt.contradictions == ()
    if task == "CleansUp":
        assert "let go" in launcher.lines


def test_an_end_that_was_announced_is_no_success_afterwards() -> None:
    """
    Airflow and the bus receive the same end.
    """
    with launch("IsLate", **IN_EDGES) as launcher:
        launcher.wait_for_line("waiting")
        launcher.process.terminate()
        assert launcher.wait() != 0

    attempt = the_attempt("IsLate")
    assert isinstance(attempt.end, TaskFailed)
    assert attempt.cause == "terminated"


def test_no_report_to_the_launcher_ends_up_in_a_file_of_the_author_s(marks: Path) -> None:
    """
    A number that was closed and opened again is another descriptor.
    """
    with launch("ClosesEverything", **IN_EDGES) as launcher:
        launcher.wait()

    assert [path.read_bytes() for path in sorted(marks.glob("mine-*"))] == [b""] * 8
    # In any order: it can no longer receive the notice that its start is in the journal.
    assert {event.name for _, event in journal_rows()} >= {"task.dispatched", "task.started", "task.finished"}


def test_the_report_pipe_of_a_task_that_writes_without_end_is_drained() -> None:
    """
    Lines that are not reports are skipped, and no process waits for a full pipe.
    """
    with launch("Chatters", **IN_EDGES) as launcher:
        assert launcher.wait() == 0, launcher.lines

    assert isinstance(the_attempt("Chatters").end, TaskFinished)


REAPER = """\
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as process 1 of a container is
subprocess.run([sys.executable, "-m", "dkist_processing_core.launcher"], check=True)
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nobody is left")
"""


def test_no_process_inherits_a_zombie() -> None:
    """
    A worker that is process 1 of its container need not reap processes that launchers leave behind.
    """
    done = subprocess.run(
        [sys.executable, "-c", REAPER],
        cwd=ROOT,
        env=environ_of("Succeeds"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.stdout.splitlines()[-1] == "nobody is left", done.stderr


def test_a_launcher_that_may_start_nothing_but_its_task_watches_it_all_the_same() -> None:
    """
    Without a guard, a thread and a pidfd, the task still has its end.
    """
    program = (
        "import os, sys; real = os.posix_spawn\n"
        "def spawn(path, *arguments, **options):\n"
        "    if path == '/bin/sh': raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "    return real(path, *arguments, **options)\n"
        "def none(pid): raise PermissionError(1, 'Operation not permitted')\n"
        "os.posix_spawn, os.pidfd_open = spawn, none\n"
        "from dkist_processing_core.launcher.launch import main; sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ_of("IsKilled"), check=False, timeout=300
    )

    assert done.returncode == 137
    assert the_attempt("IsKilled").cause == "signal"
    assert [event.name for _, event in journal_rows()] == ["task.dispatched", "task.started", "task.failed"]


def test_a_termination_request_while_the_launcher_loads_is_received() -> None:
    """
    No task is started, and the attempt has its end.
    """
    program = (
        "import os, signal, sys\n"
        "from dkist_processing_core.launcher.termination_requests import block_signals\n"
        "block_signals()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "from dkist_processing_core.launcher.launch import main; sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ_of("Waits"), check=False, timeout=300)

    attempt = the_attempt("Waits")
    assert done.returncode == 1
    assert (attempt.cause, attempt.started_at) == ("terminated", None)
