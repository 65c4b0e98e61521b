"""
How fast this machine is, for tests that hold a promise about seconds.

The promises are about a machine of usual speed. A shared one may be several times slower at times, and then takes as
many times longer for the same steps.
"""

import statistics
import subprocess
import sys
import time

# The time of such a process on a machine on which the promises hold, rounded up.
_PROCESS = "import asyncio, json, logging, sqlite3"
_USUAL_SECONDS = 0.1
_TRIES = 5


def here(seconds: float) -> float:
    """
    Return how many seconds a promise about a machine of usual speed allows this one, as fast as it is now.
    """
    return seconds * max(1.0, statistics.median(_seconds_of_process() for _ in range(_TRIES)) / _USUAL_SECONDS)


def _seconds_of_process() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _PROCESS], check=True)
    return time.perf_counter() - began
