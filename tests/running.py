"""
Programs for tests, run as a user would: each in a process of its own, in the folder of the project.
"""

import os
import subprocess
import sys
from pathlib import Path

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
    Run a program as a user would, in a process of its own.
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
