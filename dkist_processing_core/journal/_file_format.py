"""
A format of SQLite files, by version: the creation of a new file, the upgrade of an older one, and the checks of both.

Not here: the formats themselves (_format, journal.otlp), and the use of their tables (_journal, journal.otlp).
"""

import contextlib
import functools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dkist_processing_core.errors import JournalDamagedError, JournalEmptyError, JournalError, JournalVersionError
from dkist_processing_core.journal._rollback import without_rollback

# No release writes a higher version: a higher one is caused by damage to the file's header.
_HIGHEST_VERSION = 1000
CHECK_PAGES = "PRAGMA cell_size_check = ON"
"""Without it, a damaged page may look like the last one, and SQLite would skip the following pages silently."""
# If SQLite is built to overwrite removed data, removing a large body costs as much as writing it. The body was redacted
# before it was written. Removed data on a page that changes anyway is still overwritten.
_OVERWRITE_LITTLE = "PRAGMA secure_delete = FAST"
# Twice the default: a page that was used again and again since the last time is written back only once.
_WRITE_BACK_SELDOM = "PRAGMA wal_autocheckpoint = 2000"
# The tables that SQLite itself creates.
_SQLITES = (
    "CREATE TABLE sqlite_sequence(name,seq)",
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
)


@dataclass(frozen=True, slots=True, eq=False)
class FileFormat:
    """The tables of a kind of file, and how each older version of them becomes this one."""

    application_id: int
    """The number by which SQLite's header names the kind of file."""
    version: int
    columns: Mapping[str, str]
    """The names of the columns of each table, as a query names them; a table that is missing was lost by damage."""
    creation: Sequence[str]
    """The statements that create the tables and their first rows."""
    settings: Sequence[str]
    """The settings of a new file, executed before it has a page."""
    upgrades: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """
    The statements that upgrade each older version to the next.

    They contain only changes that do not disturb an open connection of the older release, because a process of that
    release may append at the same time.
    """
    views: Mapping[int, str] = field(default_factory=dict)
    """The view that presents each older version like the next one to a read-only connection."""
    variants: Sequence[str] = ()
    """Further statements that a valid file may hold, such as those of older versions."""
    after_damage: str = ""
    """What becomes of the content of a damaged file, for a log message."""

    def prepare(self, connection: sqlite3.Connection, path: Path, destination: str) -> None:
        """
        Create the tables of a new file, or upgrade those of an older one; a file of the current version is only read.

        Raises:
            JournalVersionError: The file has a newer version; it is not changed.
            JournalError: The file is not a journal; it is not changed either.
        """
        connection.execute(CHECK_PAGES)
        connection.execute(_OVERWRITE_LITTLE)
        connection.execute(_WRITE_BACK_SELDOM)
        try:
            with contextlib.ExitStack() as stack:
                with without_rollback(path) as reader:
                    is_logged = reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                    if not is_logged:
                        stack.enter_context(_locked(connection))
                    connection.execute("BEGIN")
                    version = self.checked_version(connection, path)
                    connection.execute("COMMIT")
                if not is_logged:
                    connection.execute("PRAGMA locking_mode = NORMAL")
                    for setting in self.settings:
                        # This has no effect on a file that has pages already.
                        connection.execute(setting)
                    connection.execute("PRAGMA journal_mode = MEMORY")
                    connection.execute("PRAGMA journal_mode = WAL")
                    with without_rollback(path):
                        connection.execute("PRAGMA user_version")
            if version == self.version:
                return
            # The commit of the first synced row also writes the tables to the disk.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have created or upgraded the tables first.
            version = self.checked_version(connection, path)
            if version == 0:
                for statement in self.creation:
                    connection.execute(statement)
                connection.execute("UPDATE fact SET value = ? WHERE name = 'destination'", (destination,))
                connection.execute(f"PRAGMA application_id = {self.application_id}")
            else:
                for older in range(version, self.version):
                    for statement in self.upgrades[older]:
                        connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self.version}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("PRAGMA locking_mode = NORMAL")

    def prepare_look(self, connection: sqlite3.Connection, path: Path) -> None:
        """
        Give a read-only connection the tables of this version, by views where the file is older.

        Raises:
            JournalError: The file has a newer version, is not a journal, or is empty.
        """
        connection.execute(CHECK_PAGES)
        version = self.checked_version(connection, path)
        if version == 0:
            msg = f"{path} holds nothing yet"
            raise JournalEmptyError(msg)
        for older in range(version, self.version):
            connection.execute(self.views[older])

    def checked_version(self, connection: sqlite3.Connection, path: Path) -> int:
        """Return the version of a file, 0 for an empty one; raise a `JournalError` if it is no usable journal."""
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        is_empty = not tables
        is_of_ours = tables >= set(self.columns)
        is_of_kind = application == self.application_id
        is_version = 1 <= version <= _HIGHEST_VERSION
        if (is_of_ours and application != self.application_id) or (
            tables and application == self.application_id and not is_version
        ):
            msg = f"the journal {path} cannot be used: its head is damaged"
            raise JournalDamagedError(msg)
        if not is_of_kind and not (is_empty and application == version == 0):
            msg = f"{path} is an SQLite file of something else, not a journal"
            raise JournalError(msg)
        if version > self.version:
            msg = f"{path} was written by a newer release (format {version}, this one reads up to {self.version})"
            raise JournalVersionError(msg)
        foreign = self.foreign_names(connection)
        if foreign:
            what = ", ".join(foreign)
            msg = f"the journal {path} cannot be used: it holds {what}, which no release makes as it is there"
            raise JournalDamagedError(msg)
        return int(version)

    def foreign_names(self, connection: sqlite3.Connection) -> list[str]:
        """Return the schema items that no release creates, such as a view instead of a table, which may be endless."""
        ours = _tables_of(self)
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return sorted(str(name) for name, sql in rows if _compact(str(sql)) not in ours)


@contextlib.contextmanager
def _locked(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep a connection's lock between statements: SQLite looks for a rollback journal each time it takes a lock."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA user_version")
    try:
        yield
    finally:
        connection.execute("PRAGMA locking_mode = NORMAL")
        with contextlib.suppress(sqlite3.Error):
            # The next statement releases the lock.
            connection.execute("PRAGMA user_version")


@functools.cache
def _tables_of(file_format: FileFormat) -> set[str]:
    """Return the statements of a format that SQLite stores, and those of its internal tables."""
    statements = (*file_format.creation, *file_format.variants, *_SQLITES)
    return {_compact(each.replace("IF NOT EXISTS", "")) for each in statements if each.lstrip().startswith("CREATE")}


def _compact(statement: str) -> str:
    """Return a statement as it is compared with what SQLite stores: without spaces."""
    return "".join(statement.split())
