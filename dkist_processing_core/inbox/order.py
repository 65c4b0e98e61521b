"""
The order within runs, for consumers that ask for it: a row is handled after all earlier rows of its run.

A claim finds a row that may not be handled yet. If an earlier row waits for its next try, for a firm report or for an
operator, the row is parked, so that later claims do not find it again. It returns when that earlier row is finished.
Not here: the claim of the others (claims).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, Self

from sqlalchemy import Connection, RowMapping, bindparam, text

from dkist_processing_core.events import Event
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import UNFINISHED, State, indexed


class RunKey(NamedTuple):
    """The run of a row."""

    run_id: str
    workflow: str
    version: str

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the run of an event."""
        return cls(indexed(event.run_id), event.workflow_name, event.workflow_version)


def run_of(row: RowMapping) -> RunKey:
    """Return the run of a row."""
    return RunKey(row["run_id"], row["workflow"], row["version"])


_THIS_RUN = "consumer = :consumer AND run_id = :run_id AND workflow = :workflow AND version = :version"
# The first unfinished row of a run apart from those that are claimed together.
_FIRST = text(
    f"""
    SELECT seq, state, claim, due_at FROM dkist_core_inbox
    WHERE {_THIS_RUN} AND {UNFINISHED} AND seq NOT IN :seqs ORDER BY seq LIMIT 1
    """  # noqa: S608 - constants
).bindparams(bindparam("seqs", expanding=True))
# Only a row that takes long holds others up. Its lock keeps it unfinished until the others are parked; a row whose
# outcome is just recorded is locked already.
_HOLDS_UP = """
    SELECT 1 FROM dkist_core_inbox WHERE seq = :seq AND claim IS NULL
    AND (state IN ('dead', 'archived')
      OR (state = 'waiting' AND due_at > :now AND (provisional OR tries > 0 OR history IS NOT NULL))
      OR (state = 'waiting' AND due_at > 0 AND provisional AND :doubts))
"""
_PARK = text("UPDATE dkist_core_inbox SET state = 'parked' WHERE seq = :seq AND state = 'waiting' AND claim IS NULL")
_RETURN = text(
    f"UPDATE dkist_core_inbox SET state = 'waiting' WHERE {_THIS_RUN} AND state = 'parked'"  # noqa: S608
)
_RETURN_ALL = text("UPDATE dkist_core_inbox SET state = 'waiting' WHERE consumer = :consumer AND state = 'parked'")
_RETURN_FIRST = text(
    f"""
    UPDATE dkist_core_inbox SET state = 'waiting' WHERE seq IN (
        SELECT parked.seq FROM dkist_core_inbox parked WHERE parked.consumer = :consumer AND parked.state = 'parked'
        AND NOT EXISTS (
            SELECT 1 FROM dkist_core_inbox earlier WHERE earlier.consumer = parked.consumer
            AND earlier.run_id = parked.run_id AND earlier.workflow = parked.workflow
            AND earlier.version = parked.version AND earlier.seq < parked.seq
            AND earlier.{UNFINISHED}
        )
    )
    """  # noqa: S608 - constants
)


def first_of_their_runs(
    connection: Connection,
    rules: Rules,
    found: Sequence[RowMapping],
    now: float,
    lock: Callable[[Sequence[int]], Sequence[RowMapping]],
) -> tuple[list[RowMapping], int]:
    """
    Return the rows that no other row of their run precedes unfinished, in order, and how many others were parked.

    A row that is tried again is due later than the rows behind it: `lock` fetches such rows by their numbers.
    """
    rows = sorted(found, key=itemgetter("seq"))
    while True:
        first = _first_others(connection, rules, rows)
        behind = [(row, other) for row in rows if (other := first[run_of(row)]) and other["seq"] < row["seq"]]
        due = {other["seq"] for _, other in behind if _is_due(other, now)}
        more = lock(list(due)) if due else []
        if not more:
            break
        rows = sorted([*rows, *more], key=itemgetter("seq"))
    held_up = {row["seq"]: other["seq"] for row, other in behind}
    return [row for row in rows if row["seq"] not in held_up], _park(connection, rules, held_up, now)


def chosen(rows: Sequence[RowMapping], limit: int) -> Sequence[RowMapping]:
    """Return `limit` of these rows: if there are more, first those of runs whose first row is no delayed event."""
    if len(rows) <= limit:
        return rows
    is_delayed = {run_of(row): row["due_at"] > 0 and row["name"] is not None for row in reversed(rows)}
    return sorted(rows, key=lambda row: is_delayed[run_of(row)])[:limit]


def _first_others(connection: Connection, rules: Rules, rows: Sequence[RowMapping]) -> dict[RunKey, RowMapping | None]:
    """Return the first unfinished row of each run apart from these rows."""
    seqs = [row["seq"] for row in rows]
    return {
        run: connection.execute(_FIRST, {"consumer": rules.name, "seqs": seqs, **run._asdict()}).mappings().first()
        for run in dict.fromkeys(map(run_of, rows))
    }


def _is_due(row: RowMapping, now: float) -> bool:
    return row["state"] == State.WAITING and row["claim"] is None and row["due_at"] <= now


def _park(connection: Connection, rules: Rules, held_up: Mapping[int, int], now: float) -> int:
    """Park rows, each held up by another, if that takes long, and return the number of parked rows."""
    parked = 0
    lock = " FOR SHARE SKIP LOCKED" if connection.dialect.name == "postgresql" else ""
    for other in set(held_up.values()):
        if connection.scalar(text(_HOLDS_UP + lock), {"seq": other, "now": now, "doubts": rules.doubts}):
            seqs = [{"seq": seq} for seq in held_up if held_up[seq] == other]
            connection.execute(_PARK, seqs)
            parked += len(seqs)
    return parked


def let_go_on(connection: Connection, consumer: str, runs: Iterable[RunKey]) -> None:
    """Return the parked rows of runs, after the row that held them up was finished in the same transaction."""
    values = [{"consumer": consumer, **run._asdict()} for run in dict.fromkeys(runs)]
    if values:
        connection.execute(_RETURN, values)


def let_all_go_on(connection: Connection, consumer: str) -> int:
    """Return all parked rows, and return their number."""
    return connection.execute(_RETURN_ALL, {"consumer": consumer}).rowcount


def let_go_on_if_first(connection: Connection, consumer: str) -> None:
    """Return each parked row that is the first unfinished one of its run."""
    connection.execute(_RETURN_FIRST, {"consumer": consumer})
