"""
Arrivals: received messages become rows, each key once, before they are acknowledged to the bus.

Not here: receiving them (consumer).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    insert,
    select,
    text,
    update,
)

from dkist_processing_core.events import Event, TaskEnd, TaskEvent
from dkist_processing_core.inbox.order import RunKey, let_go_on
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import State, consumers, inbox
from dkist_processing_core.text import clean

_STRUCTURED = "application/cloudevents"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One received message: its event, or the reason why it is none."""

    event: Event | None
    body: bytes
    content_type: str | None = None
    headers: Mapping[str, Any] | None = None
    reason: str | None = None
    """Why the message is no event; it is stored as a dead letter."""
    is_wanted: bool = True
    """Whether a handler wants the event; another one is stored only if it may contradict a provisional report."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of storing a batch of arrivals."""

    new: int
    """Rows that were not there before."""
    repeated: int
    """Arrivals whose key was known."""
    dead: int
    """Arrivals that are no events; they are among the others too."""


def store(
    connection: Connection, rules: Rules, arrivals: Sequence[Arrival], now: float, verified: int | None
) -> Stored:
    """Store arrivals in their order, and the offset in the archive up to which everything is stored."""
    rows = [row for arrival in arrivals if (row := _row(arrival, rules, now)) is not None]
    new = 0
    if rows:
        new = _insert(connection, rows)
        ends = [row for row in rows if row["is_end"] and not rules.every_report]
        changed = 0
        if ends and new < len(rows):
            changed = connection.execute(_replacement, [_bound(row) for row in ends]).rowcount
        if runs := list({row["run_id"] for row in ends}):
            values = {"consumer": rules.name, "now": now, "runs": runs}
            changed += connection.execute(_cancellation, values).rowcount
        if changed and rules.ordered:
            let_go_on(connection, rules.name, [RunKey(r["run_id"], r["workflow"], r["version"]) for r in ends])
    if verified is not None:
        set_verified(connection, rules.name, verified)
    dead = sum(row["state"] == State.DEAD for row in rows)
    return Stored(new, len(rows) - new, dead)


def set_verified(connection: Connection, consumer: str, verified: int) -> None:
    """Store the offset in the archive up to which everything is stored."""
    if not connection.execute(update(consumers).where(consumers.c.name == consumer).values(verified=verified)).rowcount:
        connection.execute(insert(consumers).values(name=consumer, verified=verified))


def verified_of(connection: Connection, consumer: str) -> int | None:
    """Return the offset in the archive up to which everything is stored; None if there is none yet."""
    found: int | None = connection.scalar(select(consumers.c.verified).where(consumers.c.name == consumer))
    return found


def _row(arrival: Arrival, rules: Rules, now: float) -> dict[str, Any] | None:
    event = arrival.event
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "consumer": rules.name,
        "provisional": False,
        "is_end": False,
        "body": arrival.body,
        "content_type": None if arrival.content_type is None else clean(arrival.content_type),
        "received_at": now,
        "due_at": now,
        "state": State.WAITING.value,
    }
    if event is None:
        row |= {
            "key": f"undecodable {hashlib.sha256(arrival.body).hexdigest()}",
            "state": State.DEAD.value,
            "reason": clean(arrival.reason or "the message is no event"),
            "headers": _to_json(arrival.headers),
            "family": "undecodable",
            "first_failed_at": now,
            "last_failed_at": now,
        }
        return row
    is_provisional = isinstance(event, TaskEnd) and event.provisional
    if not arrival.is_wanted:
        if is_provisional or not isinstance(event, TaskEnd):
            return None
        row |= {"state": State.UNWANTED.value, "body": None, "done_at": now}
    elif is_provisional and rules.provisional_after is not None and not rules.every_report:
        row["due_at"] = now + rules.provisional_after
    if arrival.is_wanted and not (arrival.content_type or "").startswith(_STRUCTURED):
        row["headers"] = _to_json(arrival.headers)
    row |= {
        "key": key_of(event, arrival.body, rules),
        "event_id": event.id,
        "name": event.name,
        "workflow": event.workflow_name,
        "version": event.workflow_version,
        "run_id": event.run_id,
        "task": event.task_name if isinstance(event, TaskEvent) else None,
        "attempt": event.attempt if isinstance(event, TaskEvent) else None,
        "reporter": str(event.reported_by),
        "provisional": is_provisional,
        "is_end": isinstance(event, TaskEnd),
    }
    return row


def key_of(event: Event, body: bytes, rules: Rules) -> str:
    """Return what makes a row unique: the id of the occurrence, or one report of it."""
    if not rules.every_report:
        return event.id
    return f"{event.id} {event.reported_by} {hashlib.sha256(body).hexdigest()}"


def _to_json(headers: Mapping[str, Any] | None) -> str | None:
    if not headers:
        return None
    plain = {str(name): _plain(value) for name, value in headers.items()}
    return clean(msgspec.json.encode(plain, enc_hook=str).decode())


def _plain(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_COLUMNS = [
    column.name
    for column in inbox.columns
    if column.name not in {"seq", "claim", "starts", "tries", "error_type", "error_message", "stack", "history"}
]
_ARRAYS = {Text: "text[]", Boolean: "boolean[]", Double: "float8[]", Integer: "integer[]", LargeBinary: "bytea[]"}
# One statement with an array for each column: PostgreSQL answers once for a whole batch.
_INSERT_ARRAYS = (
    f"INSERT INTO dkist_core_inbox ({', '.join(_COLUMNS)}) SELECT * FROM unnest("  # noqa: S608 - names of columns
    + ", ".join(f"%s::{_ARRAYS[type(inbox.c[name].type)]}" for name in _COLUMNS)
    + ") ON CONFLICT (consumer, key) DO NOTHING"
)
_INSERT_ROWS = (
    f"INSERT INTO dkist_core_inbox ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (consumer, key) DO NOTHING"
)


def _insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose keys are new, and return their number."""
    if connection.dialect.name == "postgresql":
        arrays = tuple([row[name] for row in rows] for name in _COLUMNS)
        return connection.exec_driver_sql(_INSERT_ARRAYS, arrays).rowcount
    return connection.exec_driver_sql(_INSERT_ROWS, [tuple(row[name] for name in _COLUMNS) for row in rows]).rowcount


def _bound(row: dict[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": row[name] for name in _REPLACED} | {
        "of_consumer": row["consumer"],
        "of_key": row["key"],
        "is_firm": not row["provisional"] and row["state"] == State.WAITING,
        "is_wanted": row["state"] == State.WAITING,
    }


_REPLACED = ("body", "content_type", "headers", "provisional", "reporter", "due_at", "state")
# A firm report replaces a provisional one that is not handled yet; a wanted one takes the place of an unwanted one.
_replacement = text(
    f"""
    UPDATE dkist_core_inbox SET {", ".join(f"{name} = :new_{name}" for name in _REPLACED)}, done_at = NULL
    WHERE consumer = :of_consumer AND key = :of_key
    AND ((:is_firm AND provisional AND state IN ('waiting', 'parked', 'cancelled'))
      OR (:is_wanted AND state = 'unwanted'))
    """  # noqa: S608 - names of columns
)
# A firm end of an attempt cancels provisional reports of another end of it. Without a number it is of any attempt.
_cancellation = text(
    """
    UPDATE dkist_core_inbox SET state = 'cancelled', body = NULL, headers = NULL, done_at = :now
    WHERE consumer = :consumer AND run_id IN :runs AND is_end AND provisional AND state IN ('waiting', 'parked')
    AND claim IS NULL AND EXISTS (
        SELECT 1 FROM dkist_core_inbox firm
        WHERE firm.consumer = dkist_core_inbox.consumer AND firm.run_id = dkist_core_inbox.run_id
        AND firm.task = dkist_core_inbox.task AND firm.is_end AND NOT firm.provisional
        AND firm.workflow = dkist_core_inbox.workflow AND firm.version = dkist_core_inbox.version
        AND (firm.attempt = dkist_core_inbox.attempt OR firm.attempt IS NULL OR dkist_core_inbox.attempt IS NULL)
        AND firm.name <> dkist_core_inbox.name
    )
    """
).bindparams(bindparam("runs", expanding=True))
