"""
The dead letters in an embedded journal as an operator sees them: listed, retried, archived, discarded.

A named value of the file, the note of a letter, holds what an operator has decided. Not here: dead-lettering a message
(subscription), and the removal of letters that are too old (retention).
"""

import sqlite3
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._rows import readable
from dkist_processing_core.journal.message import Properties

NOTES = "letter *"
"""The names of all notes, as a pattern of SQLite."""
# The reason is cut, and only the newest lives are kept: the note is read and written as a whole.
_MAX_REASON = 1000
_MAX_LIVES = 20

Key = tuple[str, int]
"""What names a letter in its journal: the subscription, and the number of the message."""


class Decision(StrEnum):
    """What an operator has decided about a letter."""

    NONE = "none"
    RETRIED = "retried"
    """The subscription gets the message once more; if it still cannot use it, the letter is dead again."""
    ARCHIVED = "archived"


class FormerDeath(msgspec.Struct, frozen=True):
    """Why a message became a dead letter before it was retried; times are in seconds since 1970."""

    reason: str
    dead: float
    retried: float


class Note(msgspec.Struct, frozen=True):
    """The decision about a letter, and its history."""

    decision: Decision = Decision.NONE
    history: tuple[FormerDeath, ...] = ()


class StoredLetter(msgspec.Struct, frozen=True):
    """A dead letter of a named subscription."""

    subscription: str
    seq: int
    dead: float
    reason: str
    message_id: str
    body: bytes
    note: Note
    properties: Properties | None
    """Those of the message; None if the journal no longer has it, so that it cannot be retried."""


def note_name(subscription: str, seq: int) -> str:
    """Return the name under which the file keeps a letter's note."""
    return f"letter {seq} {subscription}"


def to_note(value: object) -> Note:
    """Return a stored note; one that cannot be read is empty."""
    try:
        return msgspec.json.decode(value, type=Note) if isinstance(value, str | bytes) else Note()
    except msgspec.DecodeError:
        return Note()


class Head(NamedTuple):
    """A dead letter without its message, of which a journal may have very many."""

    subscription: str
    seq: int
    dead: float
    reason: str
    decision: str
    """A `Decision`."""
    has_message: bool
    """False if the journal no longer has it, so that it cannot be retried."""


class Alike(NamedTuple):
    """The dead letters of a subscription with the same reason, counted by the file."""

    subscription: str
    reason: str
    letters: int
    """How many they are."""
    last: float
    newest: int
    """The number of the letter that died last."""
    first: float


# A note that cannot be read is none, as by `to_note`.
_HEADS = """
    WITH note AS (SELECT name, CAST(value AS TEXT) AS value FROM fact WHERE name GLOB 'letter *'),
    head AS (
        SELECT d.subscription, d.seq, d.dead, d.reason,
            EXISTS (SELECT 1 FROM message m WHERE m.seq = d.seq) AS has_message,
            coalesce(CASE WHEN json_valid(n.value) THEN json_extract(n.value, '$.decision') END, 'none') AS decision
        FROM dead_letter d LEFT JOIN note n ON n.name = 'letter ' || d.seq || ' ' || d.subscription
    )
"""


def heads(journal: Journal) -> list[Head]:
    """Return the dead letters of all subscriptions, the newest first; not those that wait for their retry."""
    rows = journal.rows(
        f"{_HEADS} SELECT subscription, seq, dead, reason, decision, has_message FROM head WHERE decision <> ?"  # noqa: S608 - constants
        " ORDER BY dead DESC, seq DESC",
        Decision.RETRIED,
    )
    return [
        Head(subscription, seq, dead, reason, decision, bool(has_message))
        for subscription, seq, dead, reason, decision, has_message in rows
    ]


def alike(journal: Journal, decision: Decision) -> list[Alike]:
    """Return the numbers of the dead letters with this decision, by their subscription and their reason."""
    # Of one maximum alone, SQLite returns the other values of its row.
    rows = journal.rows(
        f"{_HEADS} SELECT subscription, reason, count(*), max(dead), seq FROM head WHERE decision = ? GROUP BY 1, 2",  # noqa: S608 - constants
        decision,
    )
    first = journal.rows(
        f"{_HEADS} SELECT subscription, reason, min(dead) FROM head WHERE decision = ? GROUP BY 1, 2",  # noqa: S608
        decision,
    )
    at = {(subscription, reason): dead for subscription, reason, dead in first}
    # Another process may have retried a letter between the two queries.
    return [
        Alike(subscription, reason, letters, last, newest, at.get((subscription, reason), last))
        for subscription, reason, letters, last, newest in rows
    ]


def stored(journal: Journal, keys: Iterable[Key]) -> list[StoredLetter]:
    """Return the letters of these keys, in their order; those that exist no longer are left out."""
    found = [
        journal.rows(
            "SELECT d.subscription, d.seq, d.dead, d.reason, d.message_id, d.body, f.value, m.properties"
            " FROM dead_letter d LEFT JOIN fact f ON f.name = ? LEFT JOIN message m ON m.seq = d.seq"
            " WHERE d.subscription = ? AND d.seq = ?",
            note_name(*key),
            *key,
        )
        for key in keys
    ]
    return [
        StoredLetter(name, seq, dead, reason, message_id, body, to_note(note), None if kept is None else readable(kept))
        for rows in found
        for name, seq, dead, reason, message_id, body, note, kept in rows
    ]


def decide(journal: Journal, keys: Collection[Key], decision: Decision) -> None:
    """Store a decision about letters; a retry becomes a part of their history."""
    now = journal.clock()

    def change(connection: sqlite3.Connection) -> None:
        for subscription, seq in keys:
            found = connection.execute(
                "SELECT dead, reason FROM dead_letter WHERE subscription = ? AND seq = ?", (subscription, seq)
            ).fetchone()
            if found is None:
                continue
            note = note_of(connection, subscription, seq)
            history = note.history
            if decision is Decision.RETRIED:
                former = FormerDeath(reason=str(found[1])[:_MAX_REASON], dead=found[0], retried=now)
                history = (*history, former)[-_MAX_LIVES:]
            store_note(connection, subscription, seq, Note(decision, history))

    journal.transact(change)


def discard(journal: Journal, keys: Collection[Key]) -> None:
    """Remove letters."""

    def remove(connection: sqlite3.Connection) -> None:
        for subscription, seq in keys:
            remove_letter(connection, subscription, seq)

    journal.transact(remove)


def note_of(connection: sqlite3.Connection, subscription: str, seq: int) -> Note:
    """Return the note of a letter; an empty one if there is none."""
    name = note_name(subscription, seq)
    row: Any = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return to_note(row[0]) if row else Note()


def store_note(connection: sqlite3.Connection, subscription: str, seq: int, note: Note) -> None:
    """Store the note of a letter."""
    value = msgspec.json.encode(note).decode()
    connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (note_name(subscription, seq), value))


def remove_letter(connection: sqlite3.Connection, subscription: str, seq: int) -> None:
    """Remove a letter and its note."""
    connection.execute("DELETE FROM dead_letter WHERE subscription = ? AND seq = ?", (subscription, seq))
    connection.execute("DELETE FROM fact WHERE name = ?", (note_name(subscription, seq),))
