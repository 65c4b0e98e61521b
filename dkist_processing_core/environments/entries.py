"""
The entries of the folder of environments, and the state of each.

Not here: removing them (_prune).
"""

# ruff: noqa: PTH115, PTH208 - paths are texts: importing pathlib takes longer than finding
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import GONE, LOCK, MARKER, key_and_number
from dkist_processing_core.errors import EnvironmentBuildError


class State(StrEnum):
    """The state of an environment, which decides whether it can be used or removed."""

    READY = "ready"
    IN_USE = "in use"
    BUILDING = "building"
    SUPERSEDED = "superseded"
    """Complete, and replaced by a newer one."""
    LEFT_OVER = "left over"
    """Left by a build or a removal that was killed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One environment; `bytes` and `last_used` (seconds since 1970) are None if they are unknown."""

    path: str
    key: str
    state: State
    requirement: str | None = None
    bytes: int | None = None
    last_used: float | None = None
    record: dict[str, Any] | None = None
    reason: str | None = None
    """Why it is, or would be, removed."""

    @property
    def marker(self) -> str:
        """The path of its marker."""
        return f"{self.path}/{MARKER}"


def entries(folder: str) -> list[Entry]:
    """Return all environments, most recently used first, then the left-over ones."""
    found = [entry for name in names_in(folder) if (entry := _entry(folder, name)) is not None]
    return sorted(found, key=lambda entry: (-(entry.last_used or 0), entry.path))


def names_in(folder: str) -> list[str]:
    """
    Return the names in the folder of environments; a missing folder has none.

    Raises:
        EnvironmentBuildError: The folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"the folder of environments {folder} cannot be read: {error.strerror or error}"
        raise EnvironmentBuildError(msg) from error


def _entry(folder: str, name: str) -> Entry | None:
    path = f"{folder}/{name}"
    found = key_and_number(name.partition(GONE)[0])
    try:
        mode = os.lstat(path).st_mode
        if found is None or found[1] is None or not stat.S_ISDIR(mode):
            return None
        key = found[0]
        record = None if GONE in name else _record.read(f"{path}/{MARKER}")
        if record is None:
            is_building = GONE not in name and is_locked(f"{folder}/{key}{LOCK}")
            return Entry(path, key, State.BUILDING if is_building else State.LEFT_OVER)
        last_used = os.lstat(f"{path}/{MARKER}").st_mtime
    except FileNotFoundError:
        return None
    if is_locked(f"{path}/{MARKER}"):
        state = State.IN_USE
    else:
        state = State.READY if linked(folder, key) == name else State.SUPERSEDED
    size = record.get("bytes")
    return Entry(path, key, state, record["requirement"], size if isinstance(size, int) else 0, last_used, record)


def linked(folder: str, key: str) -> str | None:
    """Return the name of the environment that the link of a key points to, or None."""
    try:
        return os.readlink(f"{folder}/{key}")
    except OSError:
        return None


def is_locked(path: str) -> bool:
    """Return True if another process, or another descriptor of this one, holds a lock on a file."""
    try:
        descriptor = lock(path, exclusive=True)
    except OSError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
