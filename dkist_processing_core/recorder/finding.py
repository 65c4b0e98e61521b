"""
The recorders of the attempts that run on this host, found by the descriptors of their launchers.

Not here: the memory (region), and its content (reading).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dkist_processing_core.recorder.reading import Recording, read
from dkist_processing_core.recorder.region import NAME

_PROCESSES = Path("/proc")
_PACKAGE = b"dkist_processing_core"


def recordings() -> Iterator[Recording]:
    """Yield what each recorder on this host holds now, of those that this user may read."""
    seen: set[tuple[int, int]] = set()
    for process in _processes():
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    if NAME in os.fsdecode(link.readlink()):
                        yield from _recording(link, seen)


def _recording(link: Path, seen: set[tuple[int, int]]) -> Iterator[Recording]:
    """Yield what a recorder holds, unless another process has it as well."""
    # Read-only, and by another open file: its descriptor is closed here alone.
    descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            yield read(descriptor)
    finally:
        os.close(descriptor)


def owners_of_unreadable() -> set[int]:
    """Return the ids of the other users whose launchers and tasks run on this host, which this user may not read."""
    found: set[int] = set()
    for process in _processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if not os.access(process / "fd", os.R_OK) and _PACKAGE in (process / "cmdline").read_bytes():
                found.add(process.stat().st_uid)
    return found


def _processes() -> list[Path]:
    return sorted((each for each in _PROCESSES.iterdir() if each.name.isdigit()), key=lambda each: int(each.name))
