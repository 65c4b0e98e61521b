"""
The take-over: all messages of another journal are appended to a journal, and removed from the other one and its books.

Not here: when that happens (spare, damage, delivery.shared_journal), and how a damaged file is read (_pages).
"""

import contextlib
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from dkist_processing_core.journal._journal import Journal, is_first
from dkist_processing_core.journal._rows import readable

_BATCH = 1000
COLUMNS = "appended, exchange, routing_key, properties, body, tries, set_aside, refused"


def take_over(
    journal: Journal, other: Journal, exchanges: Mapping[str, str] | None = None, *, until: float = math.inf
) -> int:
    """
    Append all messages of another journal in their order, synced, and remove them there.

    If the process ends in between, some messages are in both journals, and are delivered twice. A message that is sent
    only once (`Journal.append`) is skipped if `journal` has ever received it.

    Args:
        journal: The journal to which the messages are appended.
        other: The journal from which they are removed.
        exchanges: Maps an exchange of the other journal to the exchange here.
        until: At this time (`time.monotonic`) the take-over stops; the remaining messages stay in the other journal.

    Returns:
        How many messages were taken over.
    """
    taken = 0
    only_once = other.sent_once()
    # If the disk loses a removal, the message is only delivered twice.
    with journal.synced(fully=True), other.synced(fully=False):
        while time.monotonic() < until and (rows := _rows(other, _BATCH)):
            _append(journal, rows, only_once, exchanges or {})
            note_taken_over(other, [row[0] for row in rows])
            taken += len(rows)
        if only_once and other.first() is None:
            # Only at the end: a message whose id is already stored would be left out. Some of the ids are notes
            # without a message.
            journal.transact(
                lambda connection: connection.executemany(
                    "INSERT OR IGNORE INTO sent_once VALUES (?, ?)", [(each, time.time()) for each in only_once]
                )
            )
    return taken


def _rows(journal: Journal, limit: int) -> list[Any]:
    return journal.rows(f"SELECT seq, {COLUMNS} FROM message ORDER BY seq LIMIT ?", limit)  # noqa: S608 - a constant


def _append(journal: Journal, rows: Sequence[Any], only_once: AbstractSet[str], exchanges: Mapping[str, str]) -> None:
    now = time.time()

    def insert(connection: sqlite3.Connection) -> None:
        for _, appended, exchange, key, properties, *values in rows:
            message_id = readable(properties).message_id
            if message_id not in only_once or is_first(connection, message_id, now):
                connection.execute(
                    f"INSERT INTO message ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                    (appended, exchanges.get(exchange, exchange), key, properties, *values),
                )

    journal.transact(insert)


def note_taken_over(journal: Journal, seqs: Sequence[int]) -> None:
    """Remove the messages that another journal has taken over, from this file and from its books."""

    def remove(connection: sqlite3.Connection) -> None:
        taken = connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in seqs]).rowcount
        connection.execute(
            "INSERT INTO fact VALUES ('taken_over', ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
            (taken, taken),
        )

    journal.transact(remove)


def take_over_rows(
    journal: Journal, rows: Sequence[Sequence[Any]], position: tuple[str, str], *, keeps_numbers: bool
) -> None:
    """
    Append rows of a damaged file, and store how far that file was read, all in one transaction.

    With `keeps_numbers` the rows come from the file that this one continues. They keep their numbers, which are lower
    than those of all messages appended to this file.
    """

    def insert(connection: sqlite3.Connection) -> None:
        taken = 0
        for seq, *values in rows:
            row = [seq if keeps_numbers else None, *values]
            with contextlib.suppress(sqlite3.IntegrityError):
                taken += connection.execute(
                    f"INSERT INTO message (seq, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                    row,
                ).rowcount
        if keeps_numbers:
            # In the books these rows count as published here.
            connection.execute("UPDATE fact SET value = value - ? WHERE name = 'taken_over'", (taken,))
        connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", position)

    journal.transact(insert)
