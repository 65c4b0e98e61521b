"""
Outcomes of claimed rows: done, tried again later, or dead.

Not here: the handlers that lead to them (consumer), and what an operator does with a dead row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, text, update

from dkist_processing_core.events import describe, family_of
from dkist_processing_core.inbox.lending import IS_WHOLE_ON_SERVER
from dkist_processing_core.inbox.tables import CLEAR, CLEARED, State, inbox
from dkist_processing_core.text import clean, clip, redact

# In characters. A row is read whenever its event is tried again, and its history keeps earlier failures.
_LONGEST_MESSAGE, _LONGEST_STACK = 8_000, 32_000


@dataclass(frozen=True, slots=True)
class Failed:
    """What became of a row whose handler failed."""

    tries: int
    due_at: float | None
    """When it is tried again; None if it is dead."""


# Executed once for each event: as text of the driver it takes a quarter of the time of a built statement.
_MARK_ONE = (
    f"UPDATE dkist_core_inbox SET state = 'done', claim = NULL, {CLEAR}, done_at = ? "  # noqa: S608 - constants
    "WHERE seq = ? AND claim = ?"
)
_MARKS_OF = {"sqlite": _MARK_ONE, "postgresql": f"{_MARK_ONE.replace('?', '%s')} AND {IS_WHOLE_ON_SERVER}"}


def mark_done(connection: Connection, seqs: Sequence[int], number: int, now: float) -> bool:
    """
    Mark claimed rows as done, and return False if one of them is no longer claimed by this claimer.

    It is False as well if a handler has ended the transaction on PostgreSQL.
    """
    if len(seqs) == 1:
        done = connection.exec_driver_sql(_MARKS_OF[connection.dialect.name], (now, seqs[0], number))
    else:
        marks = update(inbox).where(inbox.c.seq.in_(seqs), inbox.c.claim == number)
        if connection.dialect.name == "postgresql":
            marks = marks.where(text(IS_WHOLE_ON_SERVER))
        done = connection.execute(marks.values(CLEARED | {"state": State.DONE, "claim": None, "done_at": now}))
    return done.rowcount == len(seqs)


def mark_failed(
    connection: Connection,
    seq: int,
    number: int,
    *,
    error: BaseException,
    tries: int,
    now: float,
    due_at: float | None,
    reason: str | None,
    secrets: Iterable[str],
) -> bool:
    """Record a failure of a claimed row, and return False if it is no longer claimed by this claimer."""
    failure = describe(error)
    done = connection.execute(
        update(inbox)
        .where(inbox.c.seq == seq, inbox.c.claim == number)
        .values(
            state=State.DEAD if due_at is None else State.WAITING,
            claim=None,
            starts=0,
            tries=tries,
            due_at=now if due_at is None else due_at,
            first_failed_at=func.coalesce(inbox.c.first_failed_at, now),
            last_failed_at=now,
            error_type=_shortened(failure["error_type"], _LONGEST_MESSAGE, secrets),
            error_message=_shortened(failure["message"], _LONGEST_MESSAGE, secrets),
            stack=_shortened(failure["stack"], _LONGEST_STACK, secrets, keep_end=True),
            family=family_of(error),
            reason=reason,
        )
    )
    return bool(done.rowcount)


def _shortened(text: str, longest: int, secrets: Iterable[str], *, keep_end: bool = False) -> str:
    """Return a text without secrets, and cut afterwards: a part of a secret would not be recognised."""
    return clip(clean(redact(text, also=secrets)), lambda part: len(part) <= longest, keep_end=keep_end)


def mark_dead(connection: Connection, seq: int, *, reason: str, family: str, now: float) -> None:
    """Give up a row for a reason that is no exception of a handler."""
    connection.execute(
        update(inbox)
        .where(inbox.c.seq == seq)
        .values(
            state=State.DEAD,
            claim=None,
            first_failed_at=func.coalesce(inbox.c.first_failed_at, now),
            last_failed_at=now,
            family=family,
            reason=clean(reason),
        )
    )
