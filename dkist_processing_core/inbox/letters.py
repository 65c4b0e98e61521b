"""
Dead letters: rows that were given up, and what an operator does with them.

Not here: the dead letters that a broker keeps (bus), and the commands (cli).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Select, bindparam, func, select, text, update

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event
from dkist_processing_core.inbox.claims import event_of
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.inbox.order import let_go_on, run_of
from dkist_processing_core.inbox.tables import CLEARED, State, inbox

_STEP = 500
_MOST_LIVES = 20
# As text, so that the index of these rows alone serves the queries.
_IS_LETTER = text("dkist_core_inbox.state IN ('dead', 'archived')")

# From each name to the next one in the index, instead of reading the name of each row.
_CONSUMERS = text(
    """
    WITH RECURSIVE known (known_name) AS (
        SELECT min(consumer) FROM dkist_core_inbox
        UNION ALL
        SELECT (SELECT min(consumer) FROM dkist_core_inbox WHERE consumer > known_name) FROM known
        WHERE known_name IS NOT NULL
    )
    SELECT known_name FROM known WHERE known_name IS NOT NULL UNION SELECT name FROM dkist_core_consumer
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a row failed until it was dead; times are in seconds since 1970."""

    reason: str | None
    tries: int
    starts: int
    first_failed_at: float | None
    last_failed_at: float | None
    error_type: str | None
    error_message: str | None
    stack: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life(Failure):
    """How a dead letter failed before it was retried."""

    retried_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter(Failure):
    """One dead letter, with its last failure."""

    seq: int
    """Its number, which names it in commands."""
    consumer: str
    state: str
    """`dead` or `archived`."""
    family: str | None
    """What it shares with failures of the same kind: the fingerprint of the exception, or a kind of reason."""
    event: Event | None
    """None if the message is no event for this release."""
    body: bytes | None
    content_type: str | None
    headers: dict[str, Any]
    received_at: float
    history: tuple[Life, ...]
    """Its earlier lives, the oldest first."""


@dataclass(frozen=True, slots=True)
class Group:
    """The dead letters of one consumer that failed in the same way."""

    consumer: str
    family: str | None
    count: int
    first_failed_at: float | None
    last_failed_at: float | None
    newest: Letter
    """The one that failed last."""


class DeadLetters:
    """The dead letters in a database, of one consumer or of all."""

    def __init__(
        self, database: Database, consumer: str | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Store the database, and the name of the only consumer to be looked at, if one is given."""
        self._database = database
        self._consumer = consumer
        self._clock = clock

    def consumers(self) -> list[str]:
        """Return the names of the consumers that the database knows, also without dead letters."""
        with self._database.reading() as connection:
            return list(connection.scalars(_CONSUMERS))

    def groups(self, *, archived: bool = False) -> list[Group]:
        """Return the groups, that with the newest failure first."""
        at = func.max(inbox.c.last_failed_at)
        query = (
            self._of(select(inbox.c.consumer, inbox.c.family, func.count(), func.min(inbox.c.first_failed_at), at))
            .where(inbox.c.state == _state(archived=archived))
            .group_by(inbox.c.consumer, inbox.c.family)
            .order_by(at.desc(), inbox.c.consumer, inbox.c.family)
        )
        groups = []
        with self._database.reading() as connection:
            for consumer, family, count, first, last in connection.execute(query).all():
                of_group = self._letters(family, archived=archived).where(inbox.c.consumer == consumer).limit(1)
                newest = connection.execute(of_group).mappings().first()
                if newest is not None:
                    groups.append(Group(consumer, family, count, first, last, _letter(newest)))
        return groups

    def list(self, family: str | None = None, *, archived: bool = False, limit: int = 100) -> list[Letter]:
        """Return up to `limit` letters, of one family if it is given, that which failed last first."""
        with self._database.reading() as connection:
            query = self._letters(family, archived=archived).limit(limit)
            return [_letter(row) for row in connection.execute(query).mappings()]

    def show(self, seq: int) -> Letter | None:
        """Return one letter, dead or archived; None if there is none of this number."""
        with self._database.reading() as connection:
            row = connection.execute(self._of(select(inbox)).where(inbox.c.seq == seq)).mappings().first()
        return None if row is None else _letter(row)

    def retry(self, *seqs: int, family: str | None = None, every: bool = False) -> int:
        """
        Have letters handled again from now on, and return their number.

        Like rows that are tried again, they come after those that have just arrived, or take turns with them. In an
        order, each has its place in its run.

        Args:
            seqs: The numbers of the letters.
            family: The letters of this family.
            every: All letters.

        Raises:
            ValueError: Not exactly one of these selects the letters.
        """
        now = self._clock()

        def change(connection: Connection, rows: Sequence[RowMapping]) -> None:
            failure = dict.fromkeys(["family", *(each.name for each in fields(Failure))])
            # Then the intake may still cancel a provisional one that a firm report has contradicted meanwhile.
            reset = failure | {"state": State.WAITING, "due_at": now, "tries": 0, "starts": 0}
            histories = [{"of_seq": row["seq"], "new_history": _history_with(row, now)} for row in rows]
            query = update(inbox).where(inbox.c.seq == bindparam("of_seq"))
            connection.execute(query.values(reset | {"history": bindparam("new_history")}), histories)

        return self._change(seqs, family, change, every=every)

    def discard(self, *seqs: int, family: str | None = None, every: bool = False) -> int:
        """Give letters up for good, and return their number; later rows of their runs go on. As for `retry`."""

        def change(connection: Connection, rows: Sequence[RowMapping]) -> None:
            _update(connection, rows, CLEARED | {"state": State.DISCARDED, "done_at": self._clock()})
            for row in rows:
                if row["run_id"] is not None:
                    let_go_on(connection, row["consumer"], [run_of(row)])

        return self._change(seqs, family, change, every=every)

    def archive(self, *seqs: int, family: str | None = None, every: bool = False) -> int:
        """Put letters away until they are restored, and return their number; they still hold up their runs."""

        def change(connection: Connection, rows: Sequence[RowMapping]) -> None:
            _update(connection, rows, {"state": State.ARCHIVED})

        return self._change(seqs, family, change, every=every, states=(State.DEAD,))

    def restore(self, *seqs: int, family: str | None = None, every: bool = False) -> int:
        """Bring archived letters back, and return their number. As for `retry`."""

        def change(connection: Connection, rows: Sequence[RowMapping]) -> None:
            _update(connection, rows, {"state": State.DEAD})

        return self._change(seqs, family, change, every=every, states=(State.ARCHIVED,))

    def _letters(self, family: str | None, *, archived: bool) -> Select[Any]:
        query = self._of(select(inbox), family).where(inbox.c.state == _state(archived=archived))
        return query.order_by(inbox.c.last_failed_at.desc(), inbox.c.seq.desc())

    def _of(self, query: Select[Any], family: str | None = None) -> Select[Any]:
        query = query.where(_IS_LETTER)
        if self._consumer is not None:
            query = query.where(inbox.c.consumer == self._consumer)
        return query if family is None else query.where(inbox.c.family == family)

    def _change(
        self,
        seqs: Sequence[int],
        family: str | None,
        change: Callable[[Connection, Sequence[RowMapping]], None],
        *,
        every: bool,
        states: Sequence[State] = (State.DEAD, State.ARCHIVED),
    ) -> int:
        """Change the letters that are in one of these states, in steps, so that no consumer waits long."""
        if not seqs:
            # An archived letter is changed only if it is named, or restored.
            states = states if states == (State.ARCHIVED,) else (State.DEAD,)
        if bool(seqs) + (family is not None) + every != 1:
            msg = "found no selection of dead letters, or several: expected numbers, or a family, or every=True"
            raise ValueError(msg)
        query = self._of(select(inbox.c.seq), family).where(inbox.c.state.in_(states))
        if seqs:
            query = query.where(inbox.c.seq.in_(seqs))
        with self._database.reading() as connection:
            found = sorted(connection.scalars(query))
        count = 0
        for start in range(0, len(found), _STEP):
            step = self._of(select(inbox)).where(
                inbox.c.seq.in_(found[start : start + _STEP]), inbox.c.state.in_(states)
            )
            with explained(self._database.where), self._database.transaction() as connection:
                rows = connection.execute(step.with_for_update()).mappings().all()
                if rows:
                    change(connection, rows)
            count += len(rows)
        return count


_from_json = msgspec.json.Decoder(list[Life]).decode
_headers_from_json = msgspec.json.Decoder(dict[str, Any]).decode


def _state(*, archived: bool) -> State:
    return State.ARCHIVED if archived else State.DEAD


def _update(connection: Connection, rows: Sequence[RowMapping], values: dict[str, Any]) -> None:
    connection.execute(update(inbox).where(inbox.c.seq.in_([row["seq"] for row in rows])).values(values))


def _history_with(row: RowMapping, now: float) -> str:
    life = Life(**_failure(row), retried_at=now)
    return msgspec.json.encode([*_history(row), life][-_MOST_LIVES:]).decode()


def _history(row: RowMapping) -> list[Life]:
    return _from_json(row["history"]) if row["history"] else []


def _letter(row: RowMapping) -> Letter:
    try:
        event = event_of(row)
    except DecodeError:
        event = None
    return Letter(
        seq=row["seq"],
        consumer=row["consumer"],
        state=row["state"],
        family=row["family"],
        event=event,
        body=row["body"],
        content_type=row["content_type"],
        headers=_headers_from_json(row["headers"]) if row["headers"] else {},
        received_at=row["received_at"],
        history=tuple(_history(row)),
        **_failure(row),
    )


def _failure(row: RowMapping) -> dict[str, Any]:
    return {each.name: row[each.name] for each in fields(Failure)}
