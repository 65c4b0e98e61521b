"""
The spans of time in which the store was complete: every report that was on the bus was also in the store.

The rows of a run can be older if its reports cannot be read: a watcher does not judge it.

An absence counts only in such a span. A span ends with anything that may have kept reports from the store: a stalled
process, a suspended machine, a clock that was changed, a backlog, or a disturbance of the bus, after which publishers
may still have to find the broker again. Not here: the proof that the inbox has everything (consumer.caught_up).
"""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from dkist_processing_core.collect.reports.waiting import first_underived
from dkist_processing_core.collect.tables import LISTENING, REPORTS
from dkist_processing_core.consumer.caught_up import SETTLING_SECONDS, Moment
from dkist_processing_core.inbox.counts import first_unhandled
from dkist_processing_core.inbox.tables import inbox

LONGEST_GAP_SECONDS = 5.0
"""The longest time between two proofs within one span."""
_CLOCKS_AGREE_SECONDS = 1.0
# As many as arrive in a minute.
_MOST_PENDING = 60


@dataclass(slots=True)
class _Proof:
    """A proof that the inbox has everything, which the store may still have to take from there."""

    at: Moment
    disturbed_at: float
    last_row: int
    """The number of the last row in the inbox."""
    last_report: int | None = None
    """The number of the last report in the store, when all those rows were handled; None before."""


class Listening:
    """Extends the spans of one bus, in the process that receives from it."""

    def __init__(
        self,
        consumer: str,
        bus: str,
        *,
        settling: float = SETTLING_SECONDS,
        left_out: Collection[int] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Begin without a proof.

        Args:
            consumer: The name of the consumer whose inbox the store is made of.
            bus: The text by which the bus is known in the store.
            settling: How long after a disturbance, or after the beginning, a span may begin, in seconds.
            left_out: The runs that this process cannot derive again, which may become more: no proof waits for them.
            monotonic: The clock of the beginning, which nothing sets.
        """
        self._consumer = consumer
        self._bus = bus
        self._settling = settling
        self._left_out = left_out
        self._began_at = monotonic()
        self._pending: deque[_Proof] = deque(maxlen=_MOST_PENDING)
        self._last: _Proof | None = None

    def extend(self, connection: Connection, complete_at: Moment, disturbed_at: float) -> None:
        """
        Extend the spans up to the last proof whose reports are all in the rows of their runs, but for those left out.

        Args:
            connection: A transaction of the store.
            complete_at: When the inbox had everything that was on the bus.
            disturbed_at: When the bus was last disturbed, by the monotonic clock.
        """
        # Each number is read after those that may be behind it.
        last_row = connection.scalar(select(func.max(inbox.c.seq))) or 0
        self._pending.append(_Proof(complete_at, disturbed_at, last_row))
        unhandled = first_unhandled(connection, self._consumer)
        last_report = connection.scalar(select(func.max(REPORTS.c.number))) or 0
        underived = first_underived(connection, self._left_out)
        for proof in self._pending:
            if proof.last_report is None and (unhandled is None or unhandled > proof.last_row):
                proof.last_report = last_report
        while self._pending and (known := self._pending[0].last_report) is not None:
            if underived is not None and underived <= known:
                return
            self._accept(connection, self._pending.popleft())

    def _accept(self, connection: Connection, proof: _Proof) -> None:
        """Extend the current span up to a proof, or begin another one, unless publishers may not have come back."""
        current = self._current(connection)
        if current is not None and self._continues(current[1], proof):
            of_span = update(LISTENING).where(LISTENING.c.number == current[0])
            connection.execute(of_span.values(until=max(current[1], proof.at.time)))
        elif proof.at.monotonic >= max(self._began_at, proof.disturbed_at) + self._settling:
            self._begin(connection, proof.at.time)
        else:
            return
        self._last = proof

    def _begin(self, connection: Connection, moment: float) -> None:
        """Begin a span. A clock that was set back shows a time again, which then counts for this span alone."""
        is_ahead = (LISTENING.c.bus == self._bus, LISTENING.c.until >= moment)
        connection.execute(delete(LISTENING).where(*is_ahead, LISTENING.c.since >= moment))
        connection.execute(update(LISTENING).where(*is_ahead).values(until=moment))
        connection.execute(LISTENING.insert().values(bus=self._bus, since=moment, until=moment))

    def _current(self, connection: Connection) -> tuple[int, float] | None:
        query = select(LISTENING.c.number, LISTENING.c.until).where(LISTENING.c.bus == self._bus)
        row = connection.execute(query.order_by(LISTENING.c.number.desc()).limit(1)).first()
        return None if row is None else (row.number, row.until)

    def _continues(self, until: float, proof: _Proof) -> bool:
        """Return whether nothing can have kept a report from the store between the end of a span and a proof."""
        if not -_CLOCKS_AGREE_SECONDS <= proof.at.time - until <= LONGEST_GAP_SECONDS:
            return False
        if self._last is None:
            # Another process has listened until a few seconds ago.
            return proof.disturbed_at <= self._began_at
        last = self._last.at
        passed, by_clock = proof.at.monotonic - last.monotonic, proof.at.time - last.time
        return abs(by_clock - passed) <= _CLOCKS_AGREE_SECONDS and proof.disturbed_at <= last.monotonic


def complete_until(connection: Connection, bus: str) -> float | None:
    """Return the last moment at which the store was complete, in seconds since 1970; None if it never was."""
    query = select(LISTENING.c.until).where(LISTENING.c.bus == bus).order_by(LISTENING.c.until.desc()).limit(1)
    return connection.scalar(query)


def spans(connection: Connection, bus: str, *, since: float = 0.0) -> list[tuple[float, float]]:
    """
    Return when the store was complete, as beginning and end of each span, in their order; no two overlap.

    Args:
        connection: The connection to the store.
        bus: The text by which the bus is known in the store.
        since: Only the spans that had not ended before, in seconds since 1970.
    """
    query = select(LISTENING.c.since, LISTENING.c.until).where(LISTENING.c.bus == bus, LISTENING.c.until >= since)
    # The order of the index. A span that was cut may have the end of the next one.
    query = query.order_by(LISTENING.c.until, LISTENING.c.number)
    return [(row.since, row.until) for row in connection.execute(query)]
