"""
What the inbox knows about a consumer beside its rows: its place in the archive, its bindings, and what was pruned.

Not here: the rows (arrivals, claims), and the use of the place (consumer.completeness).
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from dkist_processing_core.inbox.tables import consumers


@dataclass(frozen=True, slots=True)
class Position:
    """The place of one consumer."""

    verified: int | None = None
    """The offset in the archive up to which everything is stored; None if there is none yet."""
    bus: str | None = None
    """The bus with this archive; None if an earlier release has stored the offset."""
    bound: tuple[str, ...] | None = None
    """The patterns by which its queue may be bound; None if that is not known."""
    pruned_until: float | None = None
    """No key of an event was deleted that was handled at this time or later; None if none was deleted."""


def position_of(connection: Connection, consumer: str) -> Position:
    """Return the place of a consumer."""
    columns = select(consumers.c.verified, consumers.c.bus, consumers.c.bound, consumers.c.pruned_until)
    row = connection.execute(columns.where(consumers.c.name == consumer)).one_or_none()
    if row is None:
        return Position()
    bound = None if row.bound is None else msgspec.json.decode(row.bound, type=tuple[str, ...])
    return Position(row.verified, row.bus, bound, row.pruned_until)


def consumers_of(connection: Connection, bus: str) -> list[str]:
    """Return the names of the consumers with an offset in the archive of a bus, or of one that is not known."""
    is_of_bus = or_(consumers.c.bus == bus, consumers.c.bus.is_(None))
    query = select(consumers.c.name).where(consumers.c.verified.is_not(None), is_of_bus)
    return list(connection.scalars(query.order_by(consumers.c.name)))


def store_position(
    connection: Connection,
    consumer: str,
    *,
    verified: int | None = None,
    bus: str | None = None,
    bound: tuple[str, ...] | None = None,
    pruned_until: float | None = None,
) -> None:
    """Store the given parts of the place of a consumer."""
    values: dict[str, Any] = {"verified": verified, "bus": bus, "pruned_until": pruned_until}
    values["bound"] = None if bound is None else msgspec.json.encode(bound).decode()
    values = {name: value for name, value in values.items() if value is not None}
    if values and not connection.execute(update(consumers).where(consumers.c.name == consumer).values(values)).rowcount:
        connection.execute(insert(consumers).values(name=consumer, **values))
