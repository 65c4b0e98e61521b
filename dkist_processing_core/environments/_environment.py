"""
A complete environment, found and locked so that no process removes it.

Not here: building it (_build).
"""

# ruff: noqa: PTH115, PTH116 - paths are texts: importing pathlib takes longer than finding
from __future__ import annotations

import os
import stat
import time

from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import MARKER, distrust, key_and_number, marker_start
from dkist_processing_core.process.trusted_files import exchangeable_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from dkist_processing_core.environments._key import Key
    from dkist_processing_core.environments._requirement import Requirement

_LONGEST_WAIT = 0.5
_TURN = 0.01
_LARGEST = 10_000_000


class Environment:
    """
    An environment in use: it is not removed before `close` and the end of every process that inherits `lock_fd`.

    `built` is True if it was built just now, and `seconds` is the time for building or finding it. `python` is its
    interpreter and `bin` the folder of its programs, both as texts.
    """

    def __init__(
        self, path: str, requirement: Requirement, *, lock_fd: int, built: bool = False, seconds: float = 0.0
    ) -> None:
        """Store a folder, and the descriptor that holds a shared lock on its marker."""
        self.folder = path
        self.requirement = requirement
        self.lock_fd = lock_fd
        self.built = built
        self.seconds = seconds
        self.bin = f"{path}/bin"
        self.python = f"{path}/bin/python"

    @property
    def path(self) -> Path:
        """The folder of the environment."""
        from pathlib import Path  # noqa: PLC0415 - takes longer to import than an environment takes to be found

        return Path(self.folder)

    @property
    def record(self) -> dict[str, Any]:
        """The record of the build: installer, distributions, missing extras and so on."""
        from dkist_processing_core.environments._record import read  # noqa: PLC0415 - not for finding it

        return read(f"{self.folder}/{MARKER}") or {}

    def lend_lock(self) -> int:
        """Return the lock's descriptor, now inheritable: a process that inherits it also uses the environment."""
        os.set_inheritable(self.lock_fd, True)  # noqa: FBT003 - the standard library's signature
        return self.lock_fd

    def close(self) -> None:
        """Release the environment."""
        if self.lock_fd >= 0:
            # It is closed but not unlocked: the task's process may have inherited the lock, and continues to use it.
            os.close(self.lock_fd)
            self.lock_fd = -1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def find(folder: str, key: Key, requirement: Requirement) -> Environment | None:
    """Return the environment of a key that is ready for use, marked as in use, or None if there is none."""
    began = time.monotonic()
    before = None
    # This is a loop, since another process may replace and prune it between reading the link and taking the lock.
    while True:
        try:
            target = os.readlink(f"{folder}/{key.name}")
            distrusted = distrust(os.stat(folder), os.geteuid()) or exchangeable_above(folder)
        except OSError:
            return None
        named = key_and_number(target)
        # No file outside the folder is executed, and no file that another user might have put into it.
        if distrusted or target == before or named is None or named[0] != key.name or named[1] is None:
            return None
        before = target
        found = _hold(f"{folder}/{target}", requirement, key)
        if found is not None:
            found.seconds = time.monotonic() - began
            return found


def _hold(path: str, requirement: Requirement, key: Key) -> Environment | None:
    """Return a folder's environment, marked as in use; None if it is incomplete, another one, or being removed."""
    marker = f"{path}/{MARKER}"
    deadline = time.monotonic() + _LONGEST_WAIT
    try:
        found = os.lstat(path)
        # The files in it are executed.
        if not stat.S_ISDIR(found.st_mode) or distrust(found, os.geteuid()) is not None:
            return None
        # A process that prunes or lists holds the lock for a moment, and may keep the environment.
        while (descriptor := lock(marker, exclusive=False)) is None:
            if time.monotonic() > deadline:
                return None
            time.sleep(_TURN)
    except OSError:
        return None
    try:
        whole = _is_marker(descriptor, marker_start(key))
    except OSError:
        whole = False
    if not whole:
        os.close(descriptor)
        return None
    try:  # noqa: SIM105 - contextlib takes as long to import as all of this
        os.utime(descriptor)
    except OSError:
        # A read-only cache is not pruned.
        pass
    return Environment(path, requirement, lock_fd=descriptor)


def _is_marker(descriptor: int, start: str) -> bool:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
        return False
    content = os.pread(descriptor, found.st_size, 0)
    return content.startswith(start.encode()) and content.endswith(b"}\n")
