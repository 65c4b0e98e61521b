"""
The marker of an environment: its content and how it was built, in one JSON file that is written last.

Not here: identifying a marker without reading JSON (_environment, _place).
"""

# ruff: noqa: PTH101, PTH105, PTH123 - paths are texts: importing pathlib takes longer than finding
import json
import os
import stat
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any

from dkist_processing_core.environments._key import Key
from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import MARKER, marker_start
from dkist_processing_core.environments._requirement import Requirement, normalised

_LARGEST = 10_000_000
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_BLOCK = 512
"""The unit of `st_blocks`, independent of the file system's own (stat(3type))."""


def read(path: str) -> dict[str, Any] | None:
    """Return the content of a marker, or None if it cannot be read."""
    try:
        # It is opened as in `lock`: a file that is not ours may be a pipe without a writer, or a link.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            found = json.loads(file.read(_LARGEST)) if is_file else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("requirement"), str) else None


def write(path: str, requirement: Requirement, key: Key, details: dict[str, Any]) -> int:
    """
    Write the marker of an environment to disk, and return the descriptor of a lock on it.

    All other files are on disk before: after a crash of the machine, no marker exists for files that were not written.
    """
    os.sync()
    text = json.dumps({"key": key.digest, "requirement": str(requirement), **details}, ensure_ascii=True) + "\n"
    if not text.startswith(marker_start(key)):
        msg = f"the marker of {requirement} would not be recognised"
        raise AssertionError(msg)
    beside = f"{path}/{MARKER}.new"
    # The users of the folder may read it if the umask allows this. No umask lets another user write to it.
    made = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    with open(made, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    descriptor = lock(beside, exclusive=False)
    if descriptor is None:
        msg = f"another process holds {beside}"
        raise BlockingIOError(msg)
    os.replace(beside, f"{path}/{MARKER}")
    sync_folder(path)
    return descriptor


def sync_folder(path: str) -> None:
    """Write the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def metadata_folders(path: str) -> Iterator[Path]:
    """Yield the folder of metadata of every distribution in an environment."""
    # lib64 is a link to lib, where there is one.
    yield from sorted(Path(path).glob("lib/python*/site-packages/*.dist-info"))


def distributions(path: str) -> dict[str, str]:
    """Return the normalised name and the version of every distribution in an environment."""
    stems = [folder.name.removesuffix(".dist-info").rpartition("-") for folder in metadata_folders(path)]
    return {normalised(name): version for name, _, version in stems}


def provided_extras(path: str, name: str) -> list[str] | None:
    """Return the normalised extras that an installed distribution provides; None if it is not installed."""
    for folder in metadata_folders(path):
        if normalised(folder.name.removesuffix(".dist-info").rpartition("-")[0]) == name:
            found: Distribution = PathDistribution(folder)
            return sorted(normalised(extra) for extra in found.metadata.get_all("Provides-Extra") or ())
    return None


def close_to_others(path: str) -> None:
    """
    Remove write access for all but the owner from a folder and everything below it, since its files are executed.

    This includes files that an installer has linked from a cache that was filled under another umask.
    """
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            found = os.lstat(f"{folder}/{name}")
            if found.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
                os.chmod(f"{folder}/{name}", stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)


def size_of(path: str) -> int:
    """Return the bytes on disk of a folder and everything below it; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            found = os.lstat(f"{folder}/{name}")
            seen[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
    return sum(seen.values())
