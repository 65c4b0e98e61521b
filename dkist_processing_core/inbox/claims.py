"""
Claims: which rows a process handles next, recorded before it handles them.

A claimer is a process that holds a lock which ends with it, so that no claim outlives its process by a guess about
time. Not here: the locks (locks), and what becomes of a claimed row (outcomes).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, case, func, or_, select, text, update

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, decode
from dkist_processing_core.events.notice import NoticeIssued, decode_notice
from dkist_processing_core.inbox.order import chosen, first_of_their_runs
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import inbox

_SCANNED = 100
# As text, so that the indexes of these rows alone serve the queries.
_IS_WAITING = text("dkist_core_inbox.state = 'waiting'")
_IS_FREE = text("dkist_core_inbox.claim IS NULL")
# A provisional row that is due at a time waits until it is due at once: that of a consumer that doubts it.
_IS_BELIEVED = text("NOT (dkist_core_inbox.provisional AND dkist_core_inbox.due_at > 0)")
_IS_CLAIMED = text("dkist_core_inbox.claim IS NOT NULL")
_COLUMNS = (
    inbox.c.seq,
    # It has none if the message was no event when it arrived.
    inbox.c.name,
    inbox.c.body,
    inbox.c.content_type,
    inbox.c.headers,
    inbox.c.workflow,
    inbox.c.version,
    inbox.c.run_id,
    inbox.c.starts,
    inbox.c.tries,
    inbox.c.received_at,
    inbox.c.due_at,
    inbox.c.history,
)
# The claimers that live: each holds the advisory lock of its number.
_LIVE = text(
    """
    SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
_from_json = msgspec.json.Decoder(dict[str, Any]).decode


def due(
    connection: Connection, rules: Rules, limit: int, now: float, *, only_delayed: bool = False
) -> list[RowMapping]:
    """
    Return up to `limit` rows that are due and may be handled; their rows are locked.

    Those that were due at once come first, in order of arrival. `only_delayed` leaves them out.
    """
    query = (
        select(*_COLUMNS)
        .where(inbox.c.consumer == rules.name, _IS_WAITING, _IS_FREE, inbox.c.due_at <= now)
        .with_for_update(skip_locked=True)
    )
    if rules.doubts:
        query = query.where(_IS_BELIEVED)
    if only_delayed:
        query = query.where(inbox.c.due_at > 0)
    oldest = query.order_by(inbox.c.due_at, inbox.c.seq)
    if not rules.ordered:
        return list(connection.execute(oldest.limit(limit)).mappings())

    def lock(seqs: Sequence[int]) -> Sequence[RowMapping]:
        return connection.execute(query.where(inbox.c.seq.in_(seqs))).mappings().all()

    is_free = or_(inbox.c.run_id.is_(None), inbox.c.run_id.not_in(_busy_runs(connection, rules)))
    of_free_runs = oldest.where(is_free).limit(max(limit, _SCANNED))
    while found := connection.execute(of_free_runs).mappings().all():
        kept, parked = first_of_their_runs(connection, rules, found, now, lock)
        if kept or not parked:
            return list(chosen(kept, limit))
    return []


def _busy_runs(connection: Connection, rules: Rules) -> list[str]:
    """Return the runs with claimed rows: a worker is in each of them."""
    query = select(inbox.c.run_id).where(inbox.c.consumer == rules.name, _IS_CLAIMED).distinct()
    return list(connection.scalars(query))


def claim(connection: Connection, rules: Rules, seqs: Sequence[int], number: int, now: float) -> None:
    """Record that a claimer starts rows, before it does."""
    values = {"claim": number, "starts": inbox.c.starts + 1}
    if rules.doubts:
        # If it does not handle a provisional one, a firm one may have come meanwhile, which spares what is claimed.
        values["due_at"] = case((inbox.c.provisional, now), else_=inbox.c.due_at)
    connection.execute(update(inbox).where(inbox.c.seq.in_(seqs)).values(values))


def free_orphans(connection: Connection, rules: Rules, number: int) -> int:
    """Free the rows whose claimers have ended, and return their number; their starts are kept."""
    of_others = (
        select(inbox.c.claim).where(inbox.c.consumer == rules.name, _IS_CLAIMED, inbox.c.claim != number).distinct()
    )
    claims = set(connection.scalars(of_others))
    if claims and connection.dialect.name == "postgresql":
        claims -= set(connection.scalars(_LIVE))
    if not claims:
        return 0
    freed = update(inbox).where(inbox.c.consumer == rules.name, inbox.c.claim.in_(claims)).values(claim=None)
    return connection.execute(freed).rowcount


_MAKE_DUE = text(
    """
    UPDATE dkist_core_inbox SET due_at = :now
    WHERE consumer = :consumer AND state = 'waiting' AND claim IS NULL AND due_at > :latest
    """
)


def make_due(connection: Connection, rules: Rules, now: float) -> None:
    """Make rows due that would wait longer than any rule makes them wait, since the clock was set back."""
    latest = now + max(rules.longest_pause, rules.provisional_after)
    connection.execute(_MAKE_DUE, {"consumer": rules.name, "now": now, "latest": latest})


def adopt(connection: Connection, seqs: Sequence[int], before: int, number: int) -> None:
    """Move claims of a number whose session has ended to a new one; claims of other rows are undone."""
    connection.execute(update(inbox).where(inbox.c.seq.in_(seqs), inbox.c.claim == before).values(claim=number))
    connection.execute(update(inbox).where(inbox.c.claim == before).values(claim=None, starts=inbox.c.starts - 1))


def give_back(connection: Connection, seqs: Sequence[int], number: int) -> bool:
    """
    Undo claims of rows that were not handled: their starts do not count.

    Return False if one of them is no longer claimed by this claimer.
    """
    given = connection.execute(
        update(inbox)
        .where(inbox.c.seq.in_(seqs), inbox.c.claim == number)
        .values(claim=None, starts=inbox.c.starts - 1)
    )
    return given.rowcount == len(seqs)


def next_due(connection: Connection, rules: Rules, now: float) -> float | None:
    """Return when the next unclaimed row is due; None if none waits, or only for the proof that it may be believed."""
    query = select(func.min(inbox.c.due_at)).where(inbox.c.consumer == rules.name, _IS_WAITING, _IS_FREE)
    if rules.doubts:
        query = query.where(or_(inbox.c.due_at > now, _IS_BELIEVED))
    found: float | None = connection.scalar(query)
    return found


def event_of(row: RowMapping | Mapping[str, Any]) -> Event:
    """
    Return the event of a stored message.

    Raises:
        DecodeError: It is none, for this release.
    """
    if row["body"] is None:
        msg = "the message is no longer stored"
        raise DecodeError(msg)
    if row["name"] == NoticeIssued.name:
        return decode_notice(row["body"])
    return decode(row["body"], row["content_type"], _from_json(row["headers"]) if row["headers"] else None)
