"""
Protection from a rollback journal, which SQLite would play back when it first reads a journal's file.

A rollback journal may name any file, and SQLite then deletes that file with the permissions of this process. No release
leaves a rollback journal that is needed: journals are in WAL mode from their first row on. Not here: the checks of
owners and links (process.trusted_files).
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dkist_processing_core.journal._opened_file_check import OpenedFileCheck
from dkist_processing_core.journal.aside import name_aside
from dkist_processing_core.journal.faults import is_of_damage

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def without_rollback(path: Path, *, timeout: float = 0.0) -> Iterator[sqlite3.Connection]:
    """
    Rename a rollback journal, and prevent SQLite from playing back another one until the context ends.

    A read-only connection reports a rollback journal and does not change it. This yields such a connection in a read
    transaction. If a rollback journal is created in between, its playback needs an exclusive lock, which that
    transaction prevents.
    """
    with contextlib.closing(_open(path, timeout)) as reader:
        yield reader


def _open(path: Path, timeout: float) -> sqlite3.Connection:
    for is_last in (False, True):
        with OpenedFileCheck(path) as file:
            uri = f"file:{quote(os.fsencode(path))}?mode=ro"
            reader = sqlite3.Connection(uri, uri=True, timeout=timeout, isolation_level=None)
            try:
                file.check(reader)
                reader.execute("BEGIN")
                reader.execute("PRAGMA user_version")
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK and is_of_damage(error):
                    # The use of the file reports this error.
                    return reader
                reader.close()
                if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK or is_last:
                    raise
            except BaseException:
                reader.close()
                raise
            else:
                return reader
        _move_aside(path.with_name(f"{path.name}-journal"))
    raise AssertionError


def _move_aside(rollback: Path) -> None:
    aside = name_aside(rollback)
    with contextlib.suppress(FileNotFoundError):
        rollback.rename(aside)
        logger.warning(
            "%s is a rollback journal, which this library never leaves behind. It is kept as %s.", rollback, aside
        )
