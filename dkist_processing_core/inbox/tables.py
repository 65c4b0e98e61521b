"""
The tables of the inbox. Their names begin with `dkist_core_`, since they may be in a database of the user.

Times are seconds since 1970, UTC. Not here: how existing tables are changed (migrations).
"""

import hashlib
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TextClause,
    text,
)


class State(StrEnum):
    """The state of a row."""

    WAITING = "waiting"
    """To be handled, at once or when it is due; also while a consumer handles it."""
    PARKED = "parked"
    """To be handled when an earlier row of its run allows it."""
    DONE = "done"
    """Handled."""
    DEAD = "dead"
    """Given up after failures; an operator decides."""
    ARCHIVED = "archived"
    """Dead, and put away by an operator."""
    DISCARDED = "discarded"
    """Dead, and given up by an operator."""
    CANCELLED = "cancelled"
    """A provisional report that a firm one contradicts."""
    UNWANTED = "unwanted"
    """A report that no handler wants, kept since it may contradict a provisional one."""


metadata = MetaData()
ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""A whole number of 64 bits, which the database may choose: SQLite does that only for this type."""
# PostgreSQL refuses a row of an index with more than 2,704 bytes: two such texts and a consumer's name are shorter.
_LONGEST, _KEPT = 250, 185

inbox = Table(
    "dkist_core_inbox",
    metadata,
    # The order of arrival.
    Column("seq", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("consumer", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("name", Text),
    Column("workflow", Text),
    Column("version", Text),
    # These two as `indexed` gives them.
    Column("run_id", Text),
    Column("task", Text),
    Column("attempt", ROW_NUMBER),
    Column("reporter", Text),
    Column("provisional", Boolean, nullable=False),
    Column("is_end", Boolean, nullable=False),
    # Whether no other attempt follows this end.
    Column("is_final", Boolean, nullable=False),
    Column("body", LargeBinary),
    Column("content_type", Text),
    Column("headers", Text),
    Column("received_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    # 0 if it is due at once, whatever the clocks of its processes show.
    Column("due_at", Double, nullable=False),
    # The number of the claimer that handles the row.
    Column("claim", BigInteger),
    Column("starts", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("first_failed_at", Double),
    Column("last_failed_at", Double),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("stack", Text),
    Column("family", Text),
    Column("reason", Text),
    Column("history", Text),
    Column("done_at", Double),
    Index("dkist_core_inbox_key", "consumer", "key", unique=True),
    sqlite_autoincrement=True,
)


def indexed(text: str) -> str:
    """Return the text by which an index knows a text of any length: a long one by its beginning and its digest."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_KEPT]} {hashlib.sha256(text.encode()).hexdigest()}"


CLEARED = dict.fromkeys(
    ("body", "headers", "error_type", "error_message", "stack", "family", "reason", "history"), None
)
"""The values of a row that is finished: its key is kept, without the message and the failures."""
CLEAR = ", ".join(f"{name} = NULL" for name in CLEARED)
"""The same as text."""
UNFINISHED = "state IN ('waiting', 'parked', 'dead', 'archived')"
"""The condition of rows that hold up their run."""


def partial_index(name: str, *columns: Column[Any], where: TextClause) -> Index:
    """Return the index of the rows that a condition selects. SQLite uses it for queries with the same text alone."""
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def _partial(name: str, *columns: str, where: str) -> None:
    partial_index(f"dkist_core_inbox_{name}", *(inbox.c[column] for column in columns), where=text(where))


_partial("due", "consumer", "due_at", "seq", where="state = 'waiting' AND claim IS NULL")
_partial("claim", "consumer", "claim", where="claim IS NOT NULL")
_partial("run", "consumer", "run_id", "seq", where=UNFINISHED)
_partial("parked", "consumer", "run_id", where="state = 'parked'")
_partial("dead", "consumer", "last_failed_at", "seq", where="state IN ('dead', 'archived')")
_partial("family", "consumer", "family", "last_failed_at", where="state IN ('dead', 'archived')")
_partial("provisional", "consumer", "run_id", where="provisional AND state IN ('waiting', 'parked')")
_partial("without_effect", "consumer", "key", where="state IN ('cancelled', 'unwanted')")
_partial("end", "consumer", "run_id", "task", where="is_end")
_partial("done", "consumer", "done_at", where="done_at IS NOT NULL")

consumers = Table(
    "dkist_core_consumer",
    metadata,
    Column("name", Text, primary_key=True),
    # The offset in the bus's archive up to which all messages are known to be stored.
    Column("verified", BigInteger),
    # The bus with this archive.
    Column("bus", Text),
    # The patterns by which its queue may be bound, as JSON.
    Column("bound", Text),
    # Keys of events that were handled before this time may be deleted.
    Column("pruned_until", Double),
)

timers = Table(
    "dkist_core_timer",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("next_at", Double, nullable=False),
)
