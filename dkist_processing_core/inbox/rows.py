"""
A row of the inbox as its handler gets it.

Not here: the other columns (tables).
"""

from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import RowMapping

from dkist_processing_core.events import Event


@dataclass(frozen=True, slots=True)
class Row:
    """A claimed row with its event."""

    seq: int
    """Its number, in order of arrival."""
    event: Event
    body: bytes = field(repr=False)
    starts: int
    """How often it was claimed since its last failure, this time included."""
    tries: int
    """How often its handlers have failed."""
    received_at: float
    """When it was stored, in seconds since 1970."""
    may_hold_up: bool = False
    """Whether later rows of its run may be parked because of it."""

    @classmethod
    def of(cls, row: RowMapping, event: Event) -> Self:
        """Return a row that is claimed now."""
        return cls(
            row["seq"],
            event,
            row["body"],
            row["starts"] + 1,
            row["tries"],
            row["received_at"],
            bool(row["tries"] or row["history"] or getattr(event, "provisional", False)),
        )
