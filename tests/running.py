"""
Programs for tests, run as a user would: each in a separate process, in the folder of the project.
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
# As the installed command; SIGINT is as in a terminal, however the tests were started.
_COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from dkist_processing_core.cli import main; main()"
)


def command(*arguments: str) -> list[str]:
    """
    Return how `dkist-core` is started.
    """
    return [sys.executable, "-P", "-c", _COMMAND, *arguments]


def run_command(*arguments: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """
    Run `dkist-core` to its end, as a user does.
    """
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def run_python(program: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """
    Run a program as a user would, in a separate process.
    """
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def status_of_fork(action: Callable[[], object]) -> int:
    """
    Do something in a fork of this process, which must end in time, and return its exit status.
    """
    fork = os.fork()
    if fork == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the fork ends here
            # A child that only exits with 1 would not report the reason.
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
