"""
Programs for tests, each run in a separate process in the folder of the project, as a user runs them.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
# Starts the same code as the installed command. SIGINT has its default action, even where the tests ignore it.
_COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from dkist_processing_core.cli import main; main()"
)


def command(*arguments: str) -> list[str]:
    """
    Return the arguments that start `dkist-core`.
    """
    return [sys.executable, "-P", "-c", _COMMAND, *arguments]


def run_command(*arguments: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """
    Run `dkist-core` to its end, as a user does, and return the finished process.
    """
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


def run_python(program: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """
    Run a program in a separate process, as a user does, and return the finished process.
    """
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def children_of(pid: int) -> list[int]:
    """
    Return the child processes of all threads of a process.
    """
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def status_of_fork(action: Callable[[], object]) -> int:
    """
    Call `action` in a fork of this process, which must end in time, and return its exit status.
    """
    fork = os.fork()
    if fork == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the fork ends here
            # The status 1 alone would not state the reason.
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(fork, os.WNOHANG)
        ended.extend([os.waitstatus_to_exitcode(status)] if pid else [])
        return bool(ended)

    try:
        wait_until(has_ended)
    finally:
        if not ended:
            os.kill(fork, signal.SIGKILL)
            os.waitpid(fork, 0)
    return ended[0]
