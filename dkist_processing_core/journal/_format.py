"""
The journal's file format, by version: the creation of a new file, and the upgrade of an older one.

Not here: the use of the tables (_journal).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dkist_processing_core.errors import JournalDamagedError, JournalEmptyError, JournalError, JournalVersionError
from dkist_processing_core.journal._rollback import without_rollback

APPLICATION_ID = 0x444B4A4E
WAL_MAGIC = (0x377F0682, 0x377F0683)
"""The first bytes of SQLite's write-ahead log (https://sqlite.org/fileformat2.html#the_write_ahead_log)."""
FORMAT_VERSION = 3
PAGE_SIZE = 8192
"""
The page size of a new file, in bytes; an existing file keeps its own.

With the default of 4096 bytes a body of 16 KiB has twice as many pages, and takes 1.4 times as long to write and to
remove. With more than 8192 bytes each small event would write more than the large ones gain.
"""
FORMER_PAGE_SIZE = 4096
"""The page size of the files of earlier releases."""
# No release writes a higher version: a higher one is caused by damage to the file's header.
_HIGHEST_VERSION = 1000
CHECK_PAGES = "PRAGMA cell_size_check = ON"
"""Without it, a damaged page may look like the last one, and SQLite would skip the following pages silently."""
_SCHEMA = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    appended REAL NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    set_aside TEXT,
    refused REAL
);
CREATE TABLE sent_once (message_id TEXT PRIMARY KEY, appended REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE subscription (name TEXT PRIMARY KEY, position INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letter (subscription TEXT NOT NULL, seq INTEGER NOT NULL, dead REAL NOT NULL, reason TEXT NOT NULL,
    message_id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (subscription, seq)) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO fact VALUES ('confirmed', 0), ('unreachable_until', 0), ('destination', '');
INSERT INTO fact VALUES ('set_aside', 0), ('pruned', 0), ('id', hex(randomblob(16)));
"""
# Files of earlier releases always have this index. Others have it only while many messages are set aside: otherwise the
# few are passed over as fast without it, and each message would write one more page.
_INDEX = "CREATE INDEX pending ON message (seq) WHERE set_aside IS NULL"
# From how many messages on, unless most rows are pending: then creating it would take longer than it saves.
_INDEXED_FROM = 1000
_LARGEST_SHARE = 10
_IS_INDEX_USEFUL = f"""
SELECT value >= {_INDEXED_FROM}
    AND (SELECT max(seq) FROM message) - (SELECT min(seq) FROM message) <= {_LARGEST_SHARE} * value
FROM fact WHERE name = 'set_aside'"""  # noqa: S608 - constants
# The cost of the books must not grow with the number of messages. Triggers count the messages that are set aside at
# each change, whichever statement makes it.
_COUNT = "UPDATE fact SET value = value {} 1 WHERE name = 'set_aside'"
_COUNTING = [
    f"CREATE TRIGGER IF NOT EXISTS aside_{name} AFTER {event} ON message WHEN {when} BEGIN {_COUNT.format(change)}; END"
    for name, event, when, change in (
        ("added", "INSERT", "new.set_aside IS NOT NULL", "+"),
        ("noted", "UPDATE OF set_aside", "old.set_aside IS NULL AND new.set_aside IS NOT NULL", "+"),
        ("retried", "UPDATE OF set_aside", "old.set_aside IS NOT NULL AND new.set_aside IS NULL", "-"),
        ("removed", "DELETE", "old.set_aside IS NOT NULL", "-"),
    )
]
# This uses only the index of pending messages, which the files of older formats have, and reads no row. The rest
# follows from published = confirmed + pending + pruned + set aside, because the embedded bus sets no message aside, and
# an outbox prunes none.
_REST = """
SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message')
    - (SELECT coalesce(max(value), 0) FROM main.fact WHERE name = 'taken_over')
    - (SELECT value FROM main.fact WHERE name = 'confirmed')
    - (SELECT count(*) FROM main.message WHERE set_aside IS NULL)"""
_IS_EMBEDDED = "(SELECT value = 'embedded' FROM main.fact WHERE name = 'destination')"
_COUNTS = (
    f"SELECT 'set_aside', CASE WHEN {_IS_EMBEDDED} THEN 0 ELSE ({_REST}) END"
    f" UNION ALL SELECT 'pruned', CASE WHEN {_IS_EMBEDDED} THEN ({_REST}) ELSE 0 END"
)
# The upgrade of each older version to the next. It may contain only changes that do not disturb an open connection of
# the older release, because a process of that release may append at the same time.
_UPGRADES = {
    1: ("ALTER TABLE message ADD COLUMN refused REAL",),
    2: (f"INSERT OR IGNORE INTO fact {_COUNTS}", *_COUNTING),
}
# Views that present each older version like this one to a read-only connection.
_VIEWS = {
    1: "CREATE TEMP VIEW message AS SELECT *, NULL AS refused FROM main.message",
    2: f"CREATE TEMP VIEW fact AS SELECT name, value FROM main.fact UNION ALL {_COUNTS}",  # noqa: S608 - constants
}


def _compact(statement: str) -> str:
    return "".join(statement.split())


# The statements of every version as SQLite stores them, without spaces, and those of SQLite's own tables.
_OURS = {
    _compact(statement)
    for statement in (
        *[each for each in _SCHEMA.split(";\n") if "CREATE" in each],
        _SCHEMA.split(";\n", maxsplit=1)[0].replace(",\n    refused REAL", ""),
        _INDEX,
        *[each.replace("IF NOT EXISTS", "") for each in _COUNTING],
        "CREATE TABLE sqlite_sequence(name,seq)",
        "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
        "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
    )
}


def foreign_names(connection: sqlite3.Connection) -> list[str]:
    """Return the schema items that no release creates, such as a view instead of a table, which may be endless."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return sorted(str(name) for name, sql in rows if _compact(str(sql)) not in _OURS)


def add_index(connection: sqlite3.Connection) -> None:
    """Create the index of pending messages if so many others are set aside that passing over them takes long."""
    if connection.execute(_IS_INDEX_USEFUL).fetchone() == (1,):
        connection.execute(_INDEX.replace("INDEX", "INDEX IF NOT EXISTS"))


def remove_index(connection: sqlite3.Connection) -> None:
    """Remove the index of pending messages if no message is set aside."""
    if connection.execute("SELECT value FROM fact WHERE name = 'set_aside'").fetchone() == (0,):
        connection.execute("DROP INDEX IF EXISTS pending")


# If SQLite is built to overwrite removed data, removing a large body costs as much as writing it. The body was redacted
# before it was written. Removed data on a page that changes anyway is still overwritten.
_OVERWRITE_LITTLE = "PRAGMA secure_delete = FAST"
# Twice the default: a page that was used again and again since the last time is written back only once.
_WRITE_BACK_SELDOM = "PRAGMA wal_autocheckpoint = 2000"


def prepare(connection: sqlite3.Connection, path: Path, destination: str) -> None:
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
                version = checked_version(connection, path)
                connection.execute("COMMIT")
            if not is_logged:
                connection.execute("PRAGMA locking_mode = NORMAL")
                # This has no effect on a file that has pages already.
                connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                connection.execute("PRAGMA journal_mode = MEMORY")
                connection.execute("PRAGMA journal_mode = WAL")
                with without_rollback(path):
                    connection.execute("PRAGMA user_version")
        if version == FORMAT_VERSION:
            return
        # The commit of the first synced row also writes the tables to the disk.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have created or upgraded the tables first.
        version = checked_version(connection, path)
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            for statement in _COUNTING:
                connection.execute(statement)
            connection.execute("UPDATE fact SET value = ? WHERE name = 'destination'", (destination,))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            for older in range(version, FORMAT_VERSION):
                for statement in _UPGRADES[older]:
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA locking_mode = NORMAL")


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


def prepare_look(connection: sqlite3.Connection, path: Path) -> None:
    """
    Give a read-only connection the tables of this version, by views where the file is older.

    Raises:
        JournalError: The file has a newer version, is not a journal, or is empty.
    """
    connection.execute(CHECK_PAGES)
    version = checked_version(connection, path)
    if version == 0:
        msg = f"{path} holds nothing yet"
        raise JournalEmptyError(msg)
    for older in range(version, FORMAT_VERSION):
        connection.execute(_VIEWS[older])


def checked_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format version, 0 for an empty file; raise a `JournalError` if it is not a journal we may write to."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    is_empty = not tables
    is_of_ours = tables >= {"message", "sent_once", "fact"}
    is_version = 1 <= version <= _HIGHEST_VERSION
    if (is_of_ours and application != APPLICATION_ID) or (tables and application == APPLICATION_ID and not is_version):
        msg = f"the journal {path} cannot be used: its head is damaged"
        raise JournalDamagedError(msg)
    if application != APPLICATION_ID and not (is_empty and application == version == 0):
        msg = f"{path} is an SQLite file of something else, not a journal"
        raise JournalError(msg)
    if version > FORMAT_VERSION:
        msg = f"{path} was written by a newer release (format {version}, this one reads up to {FORMAT_VERSION})"
        raise JournalVersionError(msg)
    foreign = foreign_names(connection)
    if foreign:
        msg = f"the journal {path} cannot be used: it holds {', '.join(foreign)}, which no release makes as it is there"
        raise JournalDamagedError(msg)
    return int(version)
