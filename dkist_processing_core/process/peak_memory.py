"""
The peak memory of a process.

It needs only the standard library, since a launcher reads the peak before it imports anything else. Not here: the
callers and the times of reading.
"""

import contextlib


def peak_memory_bytes(pid: int | str = "self") -> int | None:
    """
    Return the peak resident memory of a process in bytes, VmHWM of proc_pid_status(5); None if it cannot be read.

    This is not `ru_maxrss`, which a child inherits from its parent across exec.
    """
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file,  # noqa: PTH123 - pathlib costs its import
    ):
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
