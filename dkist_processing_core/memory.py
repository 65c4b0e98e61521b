"""
How much memory a process has had.

With the standard library alone, since a launcher looks before it imports anything else. Not here: who looks when.
"""

import contextlib


def peak_memory_bytes(pid: int | str = "self") -> int | None:
    """
    Return the most memory that a process had resident, VmHWM of proc_pid_status(5); None where it cannot be read.

    Not `ru_maxrss`, which a child inherits from its parent across exec.
    """
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file,  # noqa: PTH123 - pathlib costs its import
    ):
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
