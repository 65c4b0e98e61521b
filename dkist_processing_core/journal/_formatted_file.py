"""
The opening of a file that has a format: for use, and for a read that changes nothing.

Not here: the formats (_file_format), and the queries of each kind of file (_journal, journal.otlp).
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from dkist_processing_core.journal._file import BUSY_SECONDS, JournalFile
from dkist_processing_core.journal._file_format import FileFormat
from dkist_processing_core.journal._read_only import look
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.journal.locks import folder_lock

# Every user who may read the folder can hold its lock. A process without the lock stores its event in a spare journal.
_SHARE_OF_FOLDER = 0.1
_Result = TypeVar("_Result")


class FormattedFile(JournalFile):
    """An open file with the tables of this release's format."""

    format: ClassVar[FileFormat]

    @classmethod
    def _open(cls, path: Path, *, synced: bool, destination: str, patience: float, is_replaceable: bool = True) -> Self:
        """
        Open the file at `path`, and create it if it is missing; one of an older format is upgraded to this format.

        With `synced` a commit is on disk when it returns (SQLite's synchronous FULL: in WAL mode an fsync per
        commit). Without `synced` a commit survives the end of the process, but perhaps not a crash of the machine.

        A file is replaceable if another process may replace it when it is damaged. Then this function holds the lock
        of the folder while it opens the file.
        """
        wait = patience * _SHARE_OF_FOLDER
        lock = folder_lock(path.parent, seconds=wait) if is_replaceable else contextlib.nullcontext()
        with explained(path), lock:
            # The file is created here, so that its mode does not depend on the umask. SQLite gives its side files the
            # same mode.
            journal = cls.connect(path, make=True, patience=patience)
            try:
                journal.limit_waits(patience)
                journal.use_first(lambda connection: cls.format.prepare(connection, path, destination))
                journal.sync(fully=synced)
                journal.limit_waits()
            except BaseException:
                journal.close()
                raise
        return journal

    @classmethod
    def look(cls, path: Path, read: Callable[[Self], _Result], *, patience: float = BUSY_SECONDS) -> _Result:
        """
        Return the result of `read` for the journal at `path`, and change neither a file nor the folder.

        Other processes can use the journal at the same time. No other thread of this process may open it at the same
        time: SQLite would open it read-only there as well.
        """
        return look(cls, path, cls.format.prepare_look, read, patience)

    def value_of(self, name: str) -> object:
        """Return the value that the file holds under a name, in its table `fact`; None if there is none."""
        rows = self.rows("SELECT value FROM fact WHERE name = ?", name)
        return rows[0][0] if rows else None

    @property
    def destination(self) -> str:
        """What the content is for: the `destination` that `open` received when it created the file."""
        return str(self.value_of("destination") or "")
