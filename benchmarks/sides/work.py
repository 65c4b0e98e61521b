"""Tasks that compute, that read and write, and that wait with nine other processes."""

import mmap
import os
import signal
import tempfile

from dkist_processing_core import TaskBase

COUNT = "BENCH_COUNT"
"""The variable with the number of steps of the first two, each of which takes a moment."""
READY = "ready"
"""The line that the waiting task prints when all its processes run."""
PROCESSES = 10
_BLOCKS, _BLOCK = 64, b"x" * 65_536


class Computes(TaskBase):
    """Uses one processor, in Python alone."""

    def run(self) -> None:
        """Sum numbers."""
        for _ in range(int(os.environ[COUNT])):
            sum(number * number for number in range(50_000))


class ReadsAndWrites(TaskBase):
    """Waits for its storage most of the time."""

    def run(self) -> None:
        """
        Write a file to the disk of the journal, and read it from there, again and again.

        A file in the kernel's cache would show what any second thread costs each system call: a tenth of a microsecond.
        """
        with tempfile.TemporaryFile(buffering=0, dir=os.environ["DKIST_CORE_STATE_DIR"]) as file:
            for _ in range(int(os.environ[COUNT])):
                for _ in range(_BLOCKS):
                    file.write(_BLOCK)
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(0)
                while file.read(len(_BLOCK)):
                    pass
                file.seek(0)


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
