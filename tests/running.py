"""
Programs for tests, run as a user would: each in a process of its own, in the folder of the project.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
