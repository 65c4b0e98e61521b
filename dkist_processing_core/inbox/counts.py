"""
The numbers of unfinished rows of a consumer, and the oldest of them.

Not here: the groups of its dead letters (letters).
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of unfinished rows."""

    waiting: int
    """Waiting and not claimed, due or not."""
    claimed: int
    parked: int
    dead: int
    archived: int


# Each of them reads the index of these rows alone.
_COUNTS = {
    name: text(f"SELECT count(*) FROM dkist_core_inbox WHERE consumer = :consumer AND {condition}")  # noqa: S608 - constants
    for name, condition in (
        ("waiting", "state = 'waiting' AND claim IS NULL"),
        ("claimed", "claim IS NOT NULL"),
        ("parked", "state = 'parked'"),
        ("dead", "state IN ('dead', 'archived') AND state = 'dead'"),
        ("archived", "state IN ('dead', 'archived') AND state = 'archived'"),
    )
}


# Both read one row of an index: messages that are due at once are there in the order of their arrival.
_OLDEST = (
    text(
        "SELECT received_at FROM dkist_core_inbox WHERE consumer = :consumer AND state = 'waiting' AND claim IS NULL"
        " AND due_at <= :now ORDER BY due_at, seq LIMIT 1"
    ),
    text("SELECT min(received_at) FROM dkist_core_inbox WHERE consumer = :consumer AND claim IS NOT NULL"),
)


def oldest_due(connection: Connection, consumer: str, now: float) -> float | None:
    """Return when the oldest message was received that is due and not handled; None if there is none."""
    found = [connection.execute(query, {"consumer": consumer, "now": now}).scalar() for query in _OLDEST]
    return min((each for each in found if each is not None), default=None)


_FIRST = (
    text(
        "SELECT seq FROM dkist_core_inbox WHERE consumer = :consumer AND state = 'waiting' AND claim IS NULL"
        " ORDER BY due_at, seq LIMIT 1"
    ),
    text(
        "SELECT min(seq) FROM dkist_core_inbox WHERE consumer = :consumer AND state = 'waiting' AND claim IS NULL"
        " AND due_at > 0"
    ),
    text("SELECT min(seq) FROM dkist_core_inbox WHERE consumer = :consumer AND claim IS NOT NULL"),
)


def first_unhandled(connection: Connection, consumer: str) -> int | None:
    """Return the number of the first row that waits, also for a further try, or is claimed; None if there is none."""
    found = [connection.execute(query, {"consumer": consumer}).scalar() for query in _FIRST]
    return min((each for each in found if each is not None), default=None)


def count(connection: Connection, consumer: str) -> Counts:
    """Return the numbers of a consumer's unfinished rows."""
    values = {"consumer": consumer}
    return Counts(**{name: connection.execute(query, values).scalar_one() for name, query in _COUNTS.items()})
