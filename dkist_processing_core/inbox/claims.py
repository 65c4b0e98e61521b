"""
Claims: which rows a process handles next, recorded before it handles them.

A claimer is a process that holds a lock which ends with it. A row whose claimer has ended is claimed again alone. Not
here: the locks (locks), and what becomes of a claimed row (outcomes).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Select, func, select, text, update

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, decode
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import State, inbox

KILLER = "its consumer ended {starts} times while it handled this event, the last times alone"
_IS_WAITING = text("dkist_core_inbox.state = 'waiting'")
_IS_FREE = text("dkist_core_inbox.claim IS NULL")
_COLUMNS = (
    inbox.c.seq,
    inbox.c.body,
    inbox.c.content_type,
    inbox.c.headers,
    inbox.c.workflow,
    inbox.c.version,
    inbox.c.run_id,
    inbox.c.starts,
    inbox.c.tries,
    inbox.c.received_at,
    inbox.c.provisional,
)
_from_json = msgspec.json.Decoder(dict[str, Any]).decode
# Claims of sessions that have ended: each claimer holds the advisory lock of its number.
_LIVE = text(
    """
    SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)


def take(connection: Connection, rules: Rules, number: int, limit: int, now: float) -> list[RowMapping]:
    """Claim up to `limit` rows that are due, oldest first."""
    query = _candidates(rules, now).limit(limit)
    found = connection.execute(query).mappings().all()
    if rules.ordered and found:
        found = _first_of_their_runs(connection, rules, found)
    _claim(connection, [row["seq"] for row in found], number)
    return list(found)


def _candidates(rules: Rules, now: float) -> Select[Any]:
    query = (
        select(*_COLUMNS)
        .where(inbox.c.consumer == rules.name, _IS_WAITING, _IS_FREE, inbox.c.due_at <= now)
        .order_by(inbox.c.due_at, inbox.c.seq)
        .with_for_update(skip_locked=True)
    )
    if rules.ordered:
        other = inbox.alias("other")
        busy = select(other.c.seq).where(
            other.c.consumer == rules.name, other.c.claim.is_not(None), *_same_run(other.c, inbox.c)
        )
        query = query.where(~busy.exists())
    return query


def _same_run(left: Any, right: Any) -> tuple[Any, ...]:
    return (left.run_id == right.run_id, left.workflow == right.workflow, left.version == right.version)


def _first_of_their_runs(connection: Connection, rules: Rules, found: Sequence[RowMapping]) -> list[RowMapping]:
    """Return the rows before which no row of their run is unfinished, apart from these rows."""
    ours = [row["seq"] for row in found]
    first: dict[tuple[str, str, str], int | None] = {}
    for row in found:
        run = (row["run_id"], row["workflow"], row["version"])
        if run not in first:
            first[run] = connection.scalar(
                select(inbox.c.seq)
                .where(
                    inbox.c.consumer == rules.name,
                    inbox.c.run_id == run[0],
                    inbox.c.workflow == run[1],
                    inbox.c.version == run[2],
                    text("dkist_core_inbox.state IN ('waiting', 'parked', 'dead', 'archived')"),
                    inbox.c.seq.not_in(ours),
                )
                .order_by(inbox.c.seq)
                .limit(1)
            )
    kept = []
    for row in found:
        other = first[row["run_id"], row["workflow"], row["version"]]
        if other is None or row["seq"] < other:
            kept.append(row)
    return kept


def _claim(connection: Connection, seqs: Sequence[int], number: int) -> None:
    if seqs:
        connection.execute(update(inbox).where(inbox.c.seq.in_(seqs)).values(claim=number, starts=inbox.c.starts + 1))


def orphans(connection: Connection, rules: Rules, number: int) -> list[RowMapping]:
    """Return the rows whose claimer has ended, those that were started least first."""
    claims = set(
        connection.scalars(
            select(inbox.c.claim)
            .where(inbox.c.consumer == rules.name, inbox.c.claim.is_not(None), inbox.c.claim != number)
            .distinct()
        )
    )
    if claims and connection.dialect.name == "postgresql":
        claims -= set(connection.scalars(_LIVE))
    if not claims:
        return []
    query = (
        select(*_COLUMNS)
        .where(inbox.c.consumer == rules.name, inbox.c.claim.in_(claims))
        .order_by(inbox.c.starts, inbox.c.seq)
        .with_for_update(skip_locked=True)
    )
    return list(connection.execute(query).mappings().all())


def take_orphan(connection: Connection, row: RowMapping, number: int) -> None:
    """Claim one row whose claimer has ended."""
    _claim(connection, [row["seq"]], number)


def give_back(connection: Connection, seqs: Sequence[int], number: int) -> None:
    """Undo claims of rows that were not started: their starts do not count."""
    if seqs:
        connection.execute(
            update(inbox)
            .where(inbox.c.seq.in_(seqs), inbox.c.claim == number)
            .values(claim=None, starts=inbox.c.starts - 1)
        )


def next_due(connection: Connection, rules: Rules) -> float | None:
    """Return when the next unclaimed row is due; None if none waits."""
    found: float | None = connection.scalar(
        select(func.min(inbox.c.due_at)).where(inbox.c.consumer == rules.name, _IS_WAITING, _IS_FREE)
    )
    return found


def event_of(row: RowMapping | Mapping[str, Any]) -> Event:
    """
    Return the event of a stored message.

    Raises:
        DecodeError: It is none, for this release.
    """
    body = row["body"]
    if body is None:
        msg = "the row has no body"
        raise DecodeError(msg)
    return decode(body, row["content_type"], _from_json(row["headers"]) if row["headers"] else None)


__all__ = ["KILLER", "State", "event_of", "give_back", "next_due", "orphans", "take", "take_orphan"]
