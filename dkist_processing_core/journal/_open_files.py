"""
The check that the open files of a journal are still at their paths, which each append makes.

Not here: the descriptors of the files (_connections).
"""

# ruff: noqa: PTH116 - pathlib is slower
import os
import time
from collections.abc import Mapping
from pathlib import Path

from dkist_processing_core.process.trusted_files import Identity

_NS_IN_MS = 1_000_000
# On some file systems the times of files advance by ticks; the longest tick of Linux is 10 ms.
_COARSE_MS = 50


class OpenFiles:
    """The files that a journal's connections have opened, by path."""

    def __init__(self, path: Path, suffixes: Mapping[Identity, str]) -> None:
        """Store the journal's path, and the suffix of the path of each open file."""
        self._folder = str(path.parent)
        paths = [(f"{path}{suffix}", identity) for identity, suffix in suffixes.items()]
        # The database is first: its path is the shortest.
        self._paths = sorted(paths, key=lambda each: len(each[0]))
        self._seen_change: tuple[int, int, int] | None = None

    @property
    def are_at_their_paths(self) -> bool:
        """
        Whether each file is still at its path; False if that cannot be checked, or if no file is open.

        The side files are checked only after a change to their folder. After a stat(2) of the log Linux writes a new
        time into it with the next commit (multigrain timestamps, from 6.13 on), which makes each commit a fifth slower.
        """
        try:
            folder = os.stat(self._folder)
            change = folder.st_dev, folder.st_ino, folder.st_ctime_ns
            # The database is always checked: another file may be mounted over it, which does not change the folder.
            for path, identity in self._paths if change != self._seen_change else self._paths[:1]:
                found = os.stat(path)
                if (found.st_dev, found.st_ino) != identity:
                    return False
        except OSError:
            return False
        if change != self._seen_change:
            # A later change is sure to have another time only if the file system's times are fine-grained and this
            # change is already some ticks old.
            is_fine = folder.st_ctime_ns % _NS_IN_MS > 0
            is_old = time.time_ns() - folder.st_ctime_ns > _COARSE_MS * _NS_IN_MS
            self._seen_change = change if is_fine and is_old else None
        return bool(self._paths)
