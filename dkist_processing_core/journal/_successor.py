"""
The creation of the journal that replaces a damaged one: it continues the row numbers, subscriptions and named values.

Not here: the messages (damage), and the exchange of the files (damage).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.journal._format import MESSAGES
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._pages import Read, last_number
from dkist_processing_core.journal._rollback import without_rollback
from dkist_processing_core.journal.letters import NOTES
from dkist_processing_core.process.descriptors import low_numbers_taken


@dataclass(frozen=True, slots=True)
class OldFile:
    """A damaged file that is open: its SQLite connection, and the function that reads it without SQLite."""

    connection: sqlite3.Connection
    read: Read


def begin(beginning: Path, path: Path, old: OldFile | None, destination: str) -> None:
    """Create at `beginning` the journal that will replace the damaged one at `path`."""
    statements: list[tuple[str, tuple[object, ...]]] = []
    last = 0
    asked = None if old is None else old.connection
    with contextlib.ExitStack() as stack:
        if old is not None:
            if not old.connection.in_transaction:
                # Without the write lock, a query would play back a rollback journal of the file.
                stack.enter_context(_unread(path))
            with contextlib.suppress(sqlite3.DatabaseError):
                # A view that no release has created may return endless rows.
                asked = None if MESSAGES.foreign_names(old.connection) else asked
            last = (0 if asked is None else _last(asked)) or last_number(old.read, path)
        for table, columns in (("subscription", 3), ("sent_once", 2), ("dead_letter", 6)):
            rows, is_whole = _readable_rows(asked, f"SELECT * FROM {table}")  # noqa: S608 - a constant
            marks = ",".join("?" * columns)
            statements.extend((f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row) for row in rows)  # noqa: S608 - constants
            if table == "subscription" and not is_whole:
                statements.append(("INSERT INTO fact VALUES ('places_lost', ?)", (last,)))
        if last:
            # These values refer to row numbers, which the new file continues.
            kept = " OR name GLOB ".join(
                ["name IN ('clock', 'marks', 'prune_to')", "'wanted *'", "'missed *'", f"'{NOTES}'"]
            )
            rows, _ = _readable_rows(asked, f"SELECT name, value FROM fact WHERE {kept}")  # noqa: S608 - constants
            statements.extend(("INSERT OR REPLACE INTO fact VALUES (?, ?)", row) for row in rows)
    found = path.stat()
    # Another process that opens a journal waits for the lock of the folder, which this one holds.
    with Journal.open(beginning, destination=destination, is_replaceable=False) as new:
        if last:
            statements.append(("INSERT INTO sqlite_sequence VALUES ('message', ?)", (last,)))
            statements.append(("INSERT INTO fact VALUES ('taken_over', ?)", (last,)))
            statements.append(("INSERT INTO fact VALUES ('continues', ?)", (f"{found.st_dev}:{found.st_ino}",)))
        new.transact(lambda connection: [connection.execute(statement, values) for statement, values in statements])


@contextlib.contextmanager
def _unread(path: Path) -> Iterator[None]:
    with low_numbers_taken(), without_rollback(path):
        yield


def _readable_rows(old: sqlite3.Connection | None, query: str) -> tuple[list[tuple[object, ...]], bool]:
    """Return the rows that can be read, and whether these are all rows."""
    rows: list[tuple[object, ...]] = []
    try:
        rows.extend(() if old is None else old.execute(query))
    except sqlite3.DatabaseError:
        return rows, False
    return rows, old is not None


def _last(connection: sqlite3.Connection) -> int:
    """Return the highest row number that can be read; 0 if none can."""
    last = 0
    for query in (
        "SELECT seq FROM sqlite_sequence WHERE name = 'message'",
        "SELECT seq FROM message ORDER BY seq DESC LIMIT 1",
    ):
        with contextlib.suppress(sqlite3.DatabaseError):
            last = max([last, *[seq for (seq,) in connection.execute(query) if isinstance(seq, int)]])
    return last
