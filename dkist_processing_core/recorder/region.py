"""
The memory of a recorder: made by a launcher, inherited by the task's process as a descriptor, and mapped by both.

Not here: the places in it (layout).
"""

# ruff: noqa: PTH108 - a launcher imports it before the task is started: importing pathlib is slow
from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time

from dkist_processing_core.process.descriptors import move_up
from dkist_processing_core.process.trusted_files import close_if, identity_of, open_file
from dkist_processing_core.recorder import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dkist_processing_core.recorder.layout import Section, Value

VARIABLE = "DKIST_CORE_RECORDER_FD"
"""The variable that passes the descriptor to the task's process."""
NAME = "dkist-core-recorder"
"""The name of the memory in /proc/PID/fd, and the beginning of the file's where memory has no descriptor."""
_TRIES = 3


class Region:
    """
    A mapped recorder. Each of its values has one writer.

    A method may raise `ValueError` for a value that is too long. It is not safe for threads.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int | None = None) -> None:
        """Store the mapping, and the descriptor that belongs to it."""
        self._memory = memory
        self.descriptor = descriptor
        """The launcher's descriptor of the memory; None in a process that has closed it."""
        self._numbers: dict[Section, int] = {}
        self._log_end = layout.end_of_log(memory)

    def write(self, section: Section, content: bytes) -> None:
        """Replace the value of a section."""
        number = self._next_number(section)
        section.write(self._memory, number, content, time.monotonic())
        self._numbers[section] = number

    def _next_number(self, section: Section) -> int:
        if section not in self._numbers:
            found = section.read(self._memory)
            self._numbers[section] = 0 if found is None else found[0]
        return self._numbers[section] + 1

    def read(self, section: Section) -> Value | None:
        """Return the newest value of a section; None if there is none."""
        # A writer that is fast enough may change both slots while they are read.
        for _ in range(_TRIES):
            found = section.read(self._memory)
            if found is not None:
                return found[1]
        return None

    def append(self, line: bytes) -> None:
        """Append at most `layout.LONGEST_LINE` bytes to the log."""
        number = self._next_number(layout.LOG_END)
        self._log_end = layout.append(self._memory, number, self._log_end, line, time.monotonic())
        self._numbers[layout.LOG_END] = number

    def log(self) -> Value | None:
        """Return the last lines of the log; None if there are none."""
        return layout.log_of(self._memory)

    def close(self) -> None:
        """Unmap the memory and close the descriptor, in a process that runs no author's code."""
        self._memory.close()
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def create(folder: str | None) -> Region | None:
    """
    Return a new recorder whose descriptor a child can inherit once that is allowed; None if none can be made.

    Args:
        folder: Where a file is made if the kernel has no memfd_create(2); None for nowhere.
    """
    descriptor = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = move_up(_memory(folder))
        # Now, since a write to a page that cannot be had later would end the process.
        os.posix_fallocate(descriptor, 0, layout.REGION_BYTES)
        memory = mmap.mmap(descriptor, layout.REGION_BYTES)
        layout.begin(memory)
        return Region(memory, descriptor)
    if descriptor is not None:
        os.close(descriptor)
    return None


def _memory(folder: str | None) -> int:
    with contextlib.suppress(OSError, AttributeError):
        return os.memfd_create(NAME, os.MFD_CLOEXEC)
    if folder is None:
        msg = "there is neither memfd_create(2) nor a folder"
        raise ValueError(msg)
    path = f"{folder}/{NAME}-{os.urandom(8).hex()}"
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT, shares=False)
    os.unlink(path)
    return descriptor


def attach(descriptor: int) -> Region:
    """
    Map the recorder that this process has inherited, and close the descriptor: an author's file may get its number.

    Raises:
        OSError, ValueError: The descriptor is not that of a recorder; then it is still open.
    """
    if sys.version_info >= (3, 13):
        memory = mmap.mmap(descriptor, layout.REGION_BYTES, trackfd=False)
    else:
        # The mapping keeps a copy of the descriptor, which would be closed with it, whatever file has the number then.
        # So the copy is closed now, by its number: a copy gets the lowest free one.
        copy = os.dup(descriptor)
        os.close(copy)
        memory = mmap.mmap(descriptor, layout.REGION_BYTES)
    layout.check(memory)
    if sys.version_info < (3, 13):
        close_if(copy, identity_of(descriptor))
    os.close(descriptor)
    return Region(memory)


def view(descriptor: int) -> Region:
    """
    Map a recorder to read it; the descriptor stays open.

    Raises:
        OSError, ValueError: The descriptor is not that of a recorder.
    """
    memory = mmap.mmap(descriptor, layout.REGION_BYTES, access=mmap.ACCESS_READ)
    try:
        layout.check(memory)
    except ValueError:
        memory.close()
        raise
    return Region(memory)
