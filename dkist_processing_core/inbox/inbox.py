"""
The inbox of one consumer in one process: it stores arrivals, claims rows and records their outcomes.

Not here: the threads that use it (consumer), and the statements (arrivals, claims, outcomes).
"""

import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, case, func, select

from dkist_processing_core.errors import ClaimLostError, DecodeError, InboxError
from dkist_processing_core.inbox import arrivals, claims, outcomes
from dkist_processing_core.inbox.arrivals import Arrival, Stored
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.inbox.locks import AdvisoryLock, Lock, LockedFile, claimers_number, number_of
from dkist_processing_core.inbox.outcomes import Failed
from dkist_processing_core.inbox.rows import Row
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import State, inbox

# How often the rows of claimers that have ended are looked for, while others can be claimed.
_ORPHAN_SECONDS = 1.0
logger = logging.getLogger("dkist_processing_core.inbox")


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of unfinished rows."""

    waiting: int
    """Waiting and not claimed, due or not."""
    claimed: int
    parked: int
    dead: int
    archived: int


class Inbox:
    """The rows of one consumer. Its methods may be called by several threads."""

    def __init__(
        self,
        database: Database,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.time,
        random: random_module.Random | None = None,
    ) -> None:
        """Store the database and the rules. Nothing is read or locked yet."""
        self.rules = rules
        self._database = database
        self._clock = clock
        self._random = random or random_module.Random()  # noqa: S311 - it spreads retries
        self._claimer: Lock
        self._intake: Lock
        if database.dialect == "postgresql":
            self._claimer = AdvisoryLock(database, claimers_number)
            self._intake = AdvisoryLock(database, lambda: number_of(f"intake {rules.name}"))
        else:
            self._claimer = self._intake = LockedFile(database, rules.name)
        self._held: dict[int, bool] = {}
        self._claiming = threading.Lock()
        self._looked_at = float("-inf")

    def become_intake(self) -> bool:
        """Return True if this process is now the one that stores the arrivals of this consumer."""
        return self._intake.acquire()

    def become_claimer(self) -> bool:
        """Return True if this process may now claim rows; on SQLite one process of a consumer may."""
        return self._claimer.acquire()

    def abandon(self) -> None:
        """Release the locks as the end of the process does: its claimed rows are those of a consumer that died."""
        self._claimer.release()
        self._intake.release()
        self._held.clear()

    def store(self, arrived: Sequence[Arrival], *, verified: int | None = None) -> Stored:
        """
        Store arrivals in one transaction; after it they may be acknowledged.

        The intake stores on the session of its lock, so that no two processes store at a time.

        Raises:
            InboxUnavailableError: Nothing was stored; a retry may succeed.
        """
        transaction = self._database.transaction if self._intake.number is None else self._intake.transaction
        with explained(self._database.where), transaction() as connection:
            return arrivals.store(connection, self.rules, arrived, self._clock(), verified)

    def verified(self) -> int | None:
        """Return the offset in the archive up to which everything is stored; None if there is none yet."""
        with self._database.reading() as connection:
            return arrivals.verified_of(connection, self.rules.name)

    def claim(self, limit: int) -> list[Row]:
        """
        Claim up to `limit` rows that are due; they are this process's until an outcome is recorded or it ends.

        A row whose claimer has ended is claimed alone, and given up after `max_starts`.

        Raises:
            InboxUnavailableError: Nothing is known to be claimed; a retry may succeed.
        """
        if not self.become_claimer():
            return []
        with self._claiming:
            if any(self._held.values()):
                # A row that may end its process is handled alone.
                return []
            with self._claimer.transaction() as connection:
                number = self._claimer.number
                if number is None:
                    return []
                found = self._found(connection, number, limit)
                rows = self._decoded(connection, found)
            self._held.update({row.seq: row.starts >= self.rules.max_starts for row in rows})
            return rows

    def _found(self, connection: Connection, number: int, limit: int) -> list[RowMapping]:
        now = self._clock()
        if time.monotonic() - self._looked_at >= _ORPHAN_SECONDS:
            for orphan in claims.orphans(connection, self.rules, number):
                if orphan["starts"] >= self.rules.max_starts:
                    reason = claims.KILLER.format(starts=orphan["starts"])
                    outcomes.mark_dead(connection, orphan["seq"], reason=reason, family="killer", now=now)
                    logger.error("event %d of consumer %r is dead: %s", orphan["seq"], self.rules.name, reason)
                    continue
                if orphan["starts"] + 1 >= self.rules.max_starts and self._held:
                    # Its last start is to prove that it ends its process, so the others are handled before.
                    return []
                claims.take_orphan(connection, orphan, number)
                return [orphan]
            self._looked_at = time.monotonic()
        return claims.take(connection, self.rules, number, limit, now)

    def _decoded(self, connection: Connection, found: Sequence[RowMapping]) -> list[Row]:
        rows = []
        for row in found:
            try:
                event = claims.event_of(row)
            except DecodeError as error:
                outcomes.mark_dead(connection, row["seq"], reason=str(error), family="undecodable", now=self._clock())
                continue
            rows.append(Row(row["seq"], event, row["body"], row["starts"] + 1, row["tries"], row["received_at"]))
        return rows

    @contextmanager
    def handling(self, rows: Sequence[Row]) -> Iterator[Connection]:
        """
        Run the transaction of an effect: at its end the rows are marked as done, and both are committed or neither.

        On SQLite it takes the lock to write at its first statement.

        Raises:
            ClaimLostError: A row is no longer claimed by this process; everything was rolled back.
            InboxUnavailableError: The database cannot be used now; everything was rolled back.
        """
        with self._database.transaction() as connection:
            yield connection
            with explained(self._database.where):
                self._mark(connection, rows)
        self._forget(rows)

    def mark_done(self, rows: Sequence[Row]) -> None:
        """Mark rows as done whose handlers needed no transaction."""
        with self.handling(rows):
            pass

    def _mark(self, connection: Connection, rows: Sequence[Row]) -> None:
        seqs = [row.seq for row in rows]
        if seqs and not outcomes.mark_done(connection, seqs, self._claimer.number, self._clock()):
            msg = f"the inbox {self._database.where}: rows of {seqs} are no longer claimed by this process"
            raise ClaimLostError(msg)

    def fail(self, row: Row, error: BaseException) -> Failed:
        """Record that a handler failed: the row is tried again after a pause, or is dead after `max_tries`."""
        tries, now = row.tries + 1, self._clock()
        due_at = None if tries >= self.rules.max_tries else now + self.rules.pause(tries, self._random)
        reason = None if due_at is not None else f"its handler failed {tries} times"
        with explained(self._database.where), self._database.transaction() as connection:
            is_ours = outcomes.mark_failed(
                connection,
                row.seq,
                self._claimer.number,
                error=error,
                tries=tries,
                now=now,
                due_at=due_at,
                reason=reason,
            )
        self._forget([row])
        if not is_ours:
            msg = f"the inbox {self._database.where}: row {row.seq} is no longer claimed by this process"
            raise ClaimLostError(msg)
        return Failed(tries, due_at)

    def release(self, rows: Sequence[Row]) -> None:
        """Give rows back that were not handled: their start does not count."""
        number = self._claimer.number
        if number is not None:
            with explained(self._database.where), self._database.transaction() as connection:
                claims.give_back(connection, [row.seq for row in rows], number)
        self._forget(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        with self._claiming:
            for row in rows:
                self._held.pop(row.seq, None)

    def next_due(self) -> float | None:
        """Return when the next row that is neither claimed nor parked is due; None if there is none."""
        with self._database.reading() as connection:
            return claims.next_due(connection, self.rules)

    def counts(self) -> Counts:
        """Return the numbers of unfinished rows."""
        mine = inbox.c.consumer == self.rules.name
        unfinished = inbox.c.state.in_([State.WAITING, State.PARKED, State.DEAD, State.ARCHIVED])
        query = (
            select(inbox.c.state, func.count(), func.sum(case((inbox.c.claim.is_not(None), 1), else_=0)))
            .where(mine, unfinished)
            .group_by(inbox.c.state)
        )
        with self._database.reading() as connection:
            found = {state: (count, claimed) for state, count, claimed in connection.execute(query)}
        of = {state: found.get(state, (0, 0))[0] for state in State}
        claimed = sum(int(claimed) for _, claimed in found.values())
        return Counts(
            waiting=of[State.WAITING] - claimed,
            claimed=claimed,
            parked=of[State.PARKED],
            dead=of[State.DEAD],
            archived=of[State.ARCHIVED],
        )

    def close(self) -> None:
        """Release the locks; rows that are still claimed should be released before."""
        self.abandon()


__all__ = ["Counts", "Failed", "Inbox", "InboxError"]
