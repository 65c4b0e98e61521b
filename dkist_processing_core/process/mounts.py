"""
The mounts that this process sees, read from /proc/self/mountinfo (proc_pid_mountinfo(5)).

Not here: the use of the mounts. Paths are read as bytes and decoded by the file system's encoding: a mount point may
have any name, and the kernel writes blanks, line ends and backslashes in it as octal numbers.
"""

import os
import re
from collections.abc import Iterator

from dkist_processing_core.process.kernel_files import bytes_in

_OCTAL = rb"\\([0-7]{3})"
_FIELDS_BEFORE, _FIELDS_AFTER = 6, 3


class Mount:
    """One mount: the folder `root` of its file system is mounted at `point`."""

    __slots__ = ("file_system", "options", "point", "root")

    def __init__(self, root: str, point: str, file_system: str, options: str) -> None:
        """Store the fields of the mount; `options` are those of the file system."""
        self.root = root
        self.point = point
        self.file_system = file_system
        self.options = options


def mounts(path: str = "/proc/self/mountinfo") -> Iterator[Mount]:
    """Yield the mounts in the kernel's order; a later mount covers an earlier one at the same point."""
    for line in bytes_in(path).split(b"\n"):
        # The file system's type follows a field that is a single hyphen, after any number of optional fields.
        before, _, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        if len(fields) >= _FIELDS_BEFORE and len(rest) >= _FIELDS_AFTER:
            yield Mount(*(_decoded(field) for field in (fields[3], fields[4], rest[0], rest[2])))


def _decoded(field: bytes) -> str:
    if b"\\" in field:
        field = re.sub(_OCTAL, lambda found: bytes([int(found[1], 8) & 0xFF]), field)
    return os.fsdecode(field)
