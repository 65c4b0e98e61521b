"""
The reading of a journal without a change to its files or their folder.

Not here: the queries (_journal).
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal._file import JournalFile
from dkist_processing_core.journal._format import WAL_MAGIC
from dkist_processing_core.journal.locks import in_use
from dkist_processing_core.process.trusted_files import open_file

_STEPS_BETWEEN_CHECKS = 100_000
# Modes in which SQLite opens a file without changing the folder (https://sqlite.org/wal.html#readonly). Used: SQLite
# may not write to the shared memory, so it repairs nothing there. Unused: no process uses the file, so SQLite needs no
# shared memory. Copied: file and log were copied without the shared memory. SQLite reads them without locks and keeps
# the index of the log in this process (https://sqlite.org/wal.html#noshm); `look` checks afterwards whether another
# process has used the file during the read.
_USED, _UNUSED, _COPIED = "mode=ro&readonly_shm=1", "mode=ro&immutable=1", "mode=ro&vfs=unix-none"

_File = TypeVar("_File", bound=JournalFile)
_Result = TypeVar("_Result")
_Prepare = Callable[[sqlite3.Connection, Path], None]


def look(
    file_type: type[_File], path: Path, prepare: _Prepare, read: Callable[[_File], _Result], patience: float
) -> _Result:
    """Return the result of `read` for a read-only connection to the file at `path`; see `FormattedFile.look`."""
    while True:
        before, mode = versions(path), _mode_of_look(path)
        try:
            with in_use, _open(file_type, path, mode, prepare, patience) as file:
                found = read(file)
        except JournalError:
            if versions(path) == before:
                raise
        else:
            if mode == _USED or versions(path) == before:
                return found


def _open(file_type: type[_File], path: Path, mode: str, prepare: _Prepare, patience: float) -> _File:
    file = file_type.connect(path, f"file:{quote(os.fsencode(path))}?{mode}", patience=patience)
    # The progress handler also lets signal handlers run during a query.
    file.connection.set_progress_handler(file.is_endless, _STEPS_BETWEEN_CHECKS)
    try:
        if mode == _COPIED:
            file.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.use_first(lambda connection: prepare(connection, path))
    except BaseException:
        file.close()
        raise
    return file


def _mode_of_look(path: Path) -> str:
    """Return the mode in which a read-only connection can open the journal at `path` now."""
    if path.with_name(f"{path.name}-shm").exists():
        return _USED
    log = path.with_name(f"{path.name}-wal")
    with contextlib.suppress(OSError), os.fdopen(open_file(log, os.O_RDONLY, sets_mode=False), "rb") as file:
        if int.from_bytes(file.read(4), "big") in WAL_MAGIC:
            return _COPIED
    return _UNUSED


def versions(path: Path) -> list[tuple[int, int, int] | None]:
    """Return inode, size and time of change of a journal's file and log: they change when the files change."""
    found: list[tuple[int, int, int] | None] = []
    for name in (path.name, f"{path.name}-wal"):
        try:
            each = path.with_name(name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((each.st_ino, each.st_size, each.st_mtime_ns))
    return found
