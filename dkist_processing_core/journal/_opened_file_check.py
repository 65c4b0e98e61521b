"""
A check that SQLite has opened the intended file: it opens by a path, and another file may be at the path then.

Not here: the choice of trusted files (process.trusted_files).
"""

# ruff: noqa: PTH118, PTH119, PTH120, PTH208, PTH115 - paths are texts, as for SQLite
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Collection
from types import TracebackType
from typing import Self

from dkist_processing_core.process.descriptors import move_up, taken
from dkist_processing_core.process.trusted_files import check_beside, close_if, identity_of, open_file

_SIDE_FILES = ("-wal", "-shm", "-journal")


class OpenedFileCheck:
    """
    A context in which SQLite opens a file by its path: it holds the file, and compares the opened file with it.

    It holds the file by O_PATH: closing any other descriptor would drop the locks that SQLite holds on it (fcntl(2)).
    """

    def __init__(self, path: str | os.PathLike[str], *, make: bool = False) -> None:
        """Store the path; with `make` a missing file is created, and gets the mode of files in its folder."""
        self._path = os.fspath(path)
        self._make = make

    def __enter__(self) -> Self:
        """Open and check the file, and check its side files."""
        flags = os.O_PATH | (os.O_CREAT if self._make else 0)
        # Use a high number: at the same time the author's code may close a low one and open another file under it.
        self._descriptor = move_up(open_file(self._path, flags, sets_mode=self._make))
        self._identity = identity_of(self._descriptor)
        try:
            check_beside(self._path, _SIDE_FILES)
            # These numbers are many, and their files are known.
            self._taken = dict(taken)
            self._before = _opened(without=self._taken) | self._taken
        except BaseException:
            self._let_go()
            raise
        return self

    def check(self, connection: sqlite3.Connection) -> None:
        """
        Check that a connection has opened the held file, without reading from the opened file.

        Raises:
            PermissionError: The connection has opened another file: the file was replaced in between.
        """
        own = os.fstat(self._descriptor)
        if not (own.st_nlink and self._is_at_path(connection) and self._is_opened((own.st_dev, own.st_ino))):
            msg = f"{self._path}: found another file than a moment ago, expected the same one"
            raise PermissionError(msg)

    def _is_at_path(self, connection: sqlite3.Connection) -> bool:
        """Return True if SQLite found no link at the path: it resolves the path first, and then opens no link."""
        connection.text_factory = os.fsdecode
        opened = connection.execute("PRAGMA database_list").fetchone()[2]
        return _in_real_folder(opened) == _in_real_folder(self._path)

    def _is_opened(self, own: tuple[int, int]) -> bool:
        """Return True if the file is open; other threads may open and close files at the same time."""
        if own in dict(_opened(without=self._taken).items() - self._before.items()).values() or not self._before:
            return True
        new = dict(_opened().items() - self._before.items())
        if own in new.values():
            return True
        # SQLite may reuse a descriptor of this very file that it had to keep. Then it opens no file at the path.
        is_kept = any(file == own and number != self._descriptor for number, file in self._before.items())
        path = _in_real_folder(self._path)
        return is_kept and not any(_name_of(number) in {path, f"{path} (deleted)"} for number in new)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the file."""
        self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            # SQLite may have received this number for the same file.
            if fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_PATH:
                close_if(self._descriptor, self._identity)


def _in_real_folder(path: str) -> str:
    """Return a path with all links resolved except in its last part."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _name_of(descriptor: int) -> str:
    """Return the path by which a file was opened; "" if another thread has closed it."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _opened(*, without: Collection[int] = ()) -> dict[int, tuple[int, int]]:
    """Return the file of each open descriptor of this process, without the descriptor by which /proc is listed."""
    found = {}
    try:
        for number in map(int, os.listdir("/proc/self/fd")):
            if number not in without:
                try:
                    file = os.fstat(number)
                except OSError:
                    continue
                found[number] = file.st_dev, file.st_ino
    except OSError:
        # If /proc is missing, no comparison is possible.
        pass
    return found
