"""
The small files of the kernel, below /proc and /sys: their content at this moment.

Not here: what the content means (mounts, thread_limits, launcher._control_groups).
"""

# ruff: noqa: PTH123 - a launcher needs it for every task: importing pathlib is slow
import os


def bytes_in(path: str) -> bytes:
    """Return the content of a file; nothing if it cannot be read, as after the end of the process that it is about."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def text_in(path: str) -> str:
    """Return the content of a file by the encoding of paths, which may be in it; nothing if it cannot be read."""
    return os.fsdecode(bytes_in(path))
