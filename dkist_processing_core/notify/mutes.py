"""
Mutes: families of failures and workflows of which people want no notice until a time.

Not here: what a mute holds (groups), and the commands (cli.notify).
"""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, delete, select

from dkist_processing_core.notify.groups import Mutes
from dkist_processing_core.notify.tables import MUTES

Kind = Literal["family", "workflow"]


@dataclass(frozen=True, slots=True)
class Mute:
    """One mute; the time is in seconds since 1970."""

    kind: Kind
    name: str
    until: float


def mute(transaction: Connection, kind: Kind, name: str, until: float) -> None:
    """Mute a family or a workflow until a time, whatever was set before."""
    unmute(transaction, kind, name)
    transaction.execute(MUTES.insert().values(kind=kind, name=name, until=until))


def unmute(transaction: Connection, kind: Kind, name: str) -> bool:
    """End a mute, and return True if there was one."""
    return bool(transaction.execute(delete(MUTES).where(MUTES.c.kind == kind, MUTES.c.name == name)).rowcount)


def mutes_at(connection: Connection, now: float) -> list[Mute]:
    """Return the mutes that last, the one that ends first at the beginning."""
    query = select(MUTES).where(MUTES.c.until > now).order_by(MUTES.c.until, MUTES.c.kind, MUTES.c.name)
    return [Mute(row.kind, row.name, row.until) for row in connection.execute(query)]


def held_by(mutes: list[Mute]) -> Mutes:
    """Return what mutes hold."""
    return Mutes(
        frozenset(each.name for each in mutes if each.kind == "family"),
        frozenset(each.name for each in mutes if each.kind == "workflow"),
    )
