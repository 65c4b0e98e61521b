"""
Tasks that compute or read and write, with and without a recorder in turns, and one that waits with nine processes.
"""

import json
import mmap
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core import TaskBase
from dkist_processing_core.recorder import writing

PAIRS, SLICES = "BENCH_PAIRS", "BENCH_SLICES"
"""
The variables with the number of pairs of slices, and with the file for their seconds: `[[with, without, thread], …]`.

The last one is the processor time of the recorder's thread.
"""
READY = "ready"
"""The line that the waiting task prints when all its processes run."""
PROCESSES = 10
_BLOCKS, _BLOCK = 64, b"x" * 65_536


def _measure(step: Callable[[], object], steps: int) -> None:
    """
    Write the seconds of each slice of work, with and without the thread of the recorder in turns.

    A whole process beside another one would show what else the machine did meanwhile.
    """
    recorder = writing._recorder  # noqa: SLF001 - the recorder of this process, which has no public name
    assert recorder is not None, "the process was started with one"
    sampler, found = recorder._sampler, []  # noqa: SLF001 - as above
    for number in range(int(os.environ[PAIRS])):
        seconds, of_thread = {}, 0.0
        for is_on in (True, False) if number % 2 else (False, True):
            sampler.stop()
            if is_on:
                sampler.start()
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[is_on] = time.perf_counter() - began
            if is_on:
                of_thread = _processor_seconds(sampler._native_id)  # noqa: SLF001 - as above
        found.append([seconds[True], seconds[False], of_thread])
    Path(os.environ[SLICES]).write_text(json.dumps(found), encoding="ascii")


def _processor_seconds(thread: int) -> float:
    """Return the processor time of a thread of this process (Documentation/scheduler/sched-stats.rst of Linux)."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


class Computes(TaskBase):
    """Uses one processor, in Python alone."""

    def run(self) -> None:
        """Sum numbers."""
        _measure(lambda: sum(number * number for number in range(50_000)), 300)


class ReadsAndWrites(TaskBase):
    """Waits for its storage most of the time."""

    def run(self) -> None:
        """
        Write a file to the disk of the journal, and read it from there, again and again.

        A file in the kernel's cache would show what any second thread costs each system call: a tenth of a microsecond.
        """
        with tempfile.TemporaryFile(buffering=0, dir=os.environ["DKIST_CORE_STATE_DIR"]) as file:

            def step() -> None:
                for _ in range(_BLOCKS):
                    file.write(_BLOCK)
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(0)
                while file.read(len(_BLOCK)):
                    pass
                file.seek(0)

            _measure(step, 200)


class Waits(TaskBase):
    """Waits in ten processes, until it is terminated."""

    def run(self) -> None:
        """Fork nine processes with some memory, and wait."""
        for _ in range(PROCESSES - 1):
            if not os.fork():
                mmap.mmap(-1, 1024 * 1024).write(b"x" * 1024 * 1024)
                signal.pause()
        print(READY, flush=True)
        signal.pause()
