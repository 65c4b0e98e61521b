"""
The format of a journal of messages, by version.

Not here: how a file gets its format (_file_format), and the use of the tables (_journal).
"""

import sqlite3

from dkist_processing_core.journal._file_format import FileFormat

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

MESSAGES = FileFormat(
    application_id=APPLICATION_ID,
    version=FORMAT_VERSION,
    columns={
        "message": "seq, appended, exchange, routing_key, properties, body, tries, set_aside",
        "sent_once": "message_id, appended",
        "subscription": "name, position, used",
        "dead_letter": "subscription, seq, dead, reason, message_id, body",
        "fact": "name, value",
    },
    settings=(f"PRAGMA page_size = {PAGE_SIZE}",),
    creation=(*_SCHEMA.split(";\n"), *_COUNTING),
    upgrades={
        1: ("ALTER TABLE message ADD COLUMN refused REAL",),
        2: (f"INSERT OR IGNORE INTO fact {_COUNTS}", *_COUNTING),
    },
    views={
        1: "CREATE TEMP VIEW message AS SELECT *, NULL AS refused FROM main.message",
        2: f"CREATE TEMP VIEW fact AS SELECT name, value FROM main.fact UNION ALL {_COUNTS}",  # noqa: S608 - constants
    },
    variants=(_SCHEMA.split(";\n", maxsplit=1)[0].replace(",\n    refused REAL", ""), _INDEX),
    after_damage="its readable messages are delivered",
)


def add_index(connection: sqlite3.Connection) -> None:
    """Create the index of pending messages if so many others are set aside that passing over them takes long."""
    if connection.execute(_IS_INDEX_USEFUL).fetchone() == (1,):
        connection.execute(_INDEX.replace("INDEX", "INDEX IF NOT EXISTS"))


def remove_index(connection: sqlite3.Connection) -> None:
    """Remove the index of pending messages if no message is set aside."""
    if connection.execute("SELECT value FROM fact WHERE name = 'set_aside'").fetchone() == (0,):
        connection.execute("DROP INDEX IF EXISTS pending")
