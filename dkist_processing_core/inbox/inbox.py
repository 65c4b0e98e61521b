"""
The inbox of one consumer in one process: it stores arrivals, claims rows and records their outcomes.

It is long because it is the whole interface to a consumer's rows. Not here: the threads that use it (consumer), and the
statements (arrivals, claims, outcomes).
"""

import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import DBAPIError

from dkist_processing_core.errors import (
    ClaimLostError,
    DecodeError,
    InboxError,
    InboxUnavailableError,
)
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import arrivals, claims, outcomes, provisional, pruning
from dkist_processing_core.inbox.arrivals import Arrival, Stored
from dkist_processing_core.inbox.counts import Counts, count
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import converted, explained, is_outage
from dkist_processing_core.inbox.lending import ENDED, is_sealed, lent
from dkist_processing_core.inbox.locks import AdvisoryLock, Lock, LockedFile, claimers_number, number_of
from dkist_processing_core.inbox.order import RunKey, let_all_go_on, let_go_on
from dkist_processing_core.inbox.outcomes import Failed
from dkist_processing_core.inbox.positions import Position, position_of, store_position
from dkist_processing_core.inbox.rows import Row
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.storing import HandleEvents, Storing, log_dead
from dkist_processing_core.text import counted, redact

# How often it looks for rows of claimers that have ended, and for delayed ones, while others can be claimed.
_LOOK_SECONDS = 1.0
# A clock that loses more than this in comparison was set back.
_CLOCK_SECONDS = 1.0
_KILLER = "its consumer ended {starts} times while it handled this event"
logger = logging.getLogger("dkist_processing_core.inbox")


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
        if database.dialect == "postgresql":
            self._claimer: Lock = AdvisoryLock(database, claimers_number)
            self._intake: Lock = AdvisoryLock(database, lambda: number_of(f"intake {rules.name}"))
        else:
            self._claimer = self._intake = LockedFile(database, rules.name)
        self._storing = Storing(database, rules, self._intake, clock)
        self._claiming = threading.Lock()
        self._number = 0
        # Held while claims move from the number of a lost session to that of a new one.
        self._moving = threading.Lock()
        # The claimed rows without an outcome, and the one of them beside which no other is claimed.
        self._held: set[int] = set()
        self._alone: int | None = None
        self._freed_at = float("-inf")
        self._took_delayed = False
        # How far the clock is ahead of one that cannot be set. At the start it may have been set back before.
        self._ahead = float("inf")

    @property
    def takes_turns(self) -> bool:
        """Whether one process of the consumer works at a time, as on SQLite."""
        return self._intake is self._claimer

    def become_intake(self) -> bool:
        """Return True if this process is now the one that stores the arrivals of this consumer."""
        return self._intake.acquire()

    def become_claimer(self) -> bool:
        """Return True if this process may now claim rows; on SQLite one process of a consumer may."""
        with self._claiming:
            return self._acquire()

    def store(self, arrived: Sequence[Arrival], handle: HandleEvents | None = None) -> Stored:
        """
        Store arrivals in one transaction; after it they may be acknowledged.

        See `Storing.store`.
        """
        return self._storing.store(arrived, handle)

    def position(self) -> Position:
        """Return the place of the consumer in the archive, its bindings, and until when its keys are deleted."""
        with self._database.reading() as connection:
            return position_of(connection, self.rules.name)

    def store_position(
        self, *, verified: int | None = None, bus: str | None = None, bound: tuple[str, ...] | None = None
    ) -> None:
        """
        Store the offset in a bus's archive up to which everything is stored, or the patterns that bind the queue.

        Raises:
            InboxUnavailableError: Nothing was stored; a retry may succeed.
        """
        with self._storing.transaction() as connection:
            store_position(connection, self.rules.name, verified=verified, bus=bus, bound=bound)

    def claim(self, limit: int) -> list[Row]:
        """
        Claim up to `limit` rows that are due; they are this process's until an outcome is recorded or it ends.

        A row whose claimer has ended is claimed alone, and given up after `max_starts`.

        Raises:
            InboxUnavailableError: Nothing is known to be claimed; a retry may succeed.
        """
        with self._claiming:
            if self._alone is not None or not self._acquire():
                return []
            try:
                with explained(self._database.where), self._claimer.transaction() as connection:
                    while (rows := self._claim(connection, limit)) is None:
                        pass
            except BaseException:
                # What was freed in this transaction, or made due, is not.
                self._freed_at, self._ahead = float("-inf"), float("inf")
                raise
            self._held.update(row.seq for row in rows)
            if rows and self._is_last_start(rows[0].starts - 1):
                self._alone = rows[0].seq
            return rows

    def _claim(self, connection: Connection, limit: int) -> list[Row] | None:
        """Claim rows; None if all that were found have changed instead, so that there may be others."""
        now = self._clock()
        ahead = now - time.monotonic()
        if ahead < self._ahead - _CLOCK_SECONDS:
            claims.make_due(connection, self.rules, now)
        self._ahead = ahead
        found = self._due(connection, limit, now)
        if unknown := [row for row in found if row["name"] is None]:
            # They were no events when they arrived. They are found again, as events that have just arrived.
            for row in unknown:
                self._identify(connection, row)
            return None
        rows: list[Row] = []
        gave_up = False
        for row in found:
            is_last = self._is_last_start(row["starts"])
            is_alone = row["starts"] > 0 or is_last
            if (rows and is_alone) or (self._held and is_last):
                # Its claimer has ended, perhaps because of this row, or its next end is the last one.
                break
            event = self._event(connection, row)
            if event is None:
                gave_up = True
                if self.rules.ordered:
                    # The dead row holds up the later ones of its run.
                    break
                continue
            rows.append(Row.of(row, event))
            if is_alone:
                break
        if rows:
            claims.claim(connection, self.rules, [row.seq for row in rows], self._number, now)
        return None if gave_up and not rows else rows

    def _due(self, connection: Connection, limit: int, now: float) -> list[RowMapping]:
        """Return rows that are due, those of claimers that have ended among them."""
        if looks := not 0 <= now - self._freed_at < _LOOK_SECONDS:
            self._free(connection, now)
        found = claims.due(connection, self.rules, limit, now)
        if looks and len(found) == limit:
            # Otherwise new rows could hold delayed ones up for ever. In turn: many were perhaps retried at once.
            took, self._took_delayed = self._took_delayed, False
            if not took and (delayed := claims.due(connection, self.rules, limit, now, only_delayed=True)):
                self._took_delayed = True
                return delayed
        if not found and self._freed_at != now and self._free(connection, now):
            return claims.due(connection, self.rules, limit, now)
        return found

    def _event(self, connection: Connection, row: RowMapping) -> Event | None:
        """Return the event of a row, or give the row up if it ends its consumers or is no event."""
        if row["starts"] >= self.rules.max_starts:
            reason, family = _KILLER.format(starts=row["starts"]), "killer"
        else:
            try:
                return claims.event_of(row)
            except DecodeError as error:
                reason, family = str(error), "undecodable"
        self._give_up(connection, row, reason, family)
        return None

    def _give_up(self, connection: Connection, row: RowMapping, reason: str, family: str) -> None:
        reason = redact(reason, also=self._database.secrets)
        outcomes.mark_dead(connection, row["seq"], reason=reason, family=family, now=self._clock())
        what = "a message" if row["name"] is None else f"{row['name']} of the run {row['run_id']}"
        log_dead(self.rules, what, row["seq"], reason)

    def _identify(self, connection: Connection, row: RowMapping) -> None:
        """Give a row the place of its event, or give it up if it still is no event, or is refused by the database."""
        if (event := self._event(connection, row)) is None:
            return
        try:
            with connection.begin_nested():
                arrivals.identify(connection, self.rules, row, event, self._clock())
        except DBAPIError as error:
            refusal = converted(self._database.where, error)
            if isinstance(refusal, InboxUnavailableError):
                raise
            self._give_up(connection, row, str(refusal), "refused")

    def _is_last_start(self, starts: int) -> bool:
        """Return True if a row that ends its claimer once more is dead: no other row may be the reason of that end."""
        return starts + 1 >= self.rules.max_starts

    def _free(self, connection: Connection, now: float) -> int:
        """Free rows of claimers that have ended; without an order, also those that a process with one has parked."""
        self._freed_at = now
        parked = 0 if self.rules.ordered else let_all_go_on(connection, self.rules.name)
        freed = claims.free_orphans(connection, self.rules, self._number)
        if freed:
            logger.warning(
                "consumer %r: the process that had claimed %s has ended; %s",
                self.rules.name,
                counted(freed, "event"),
                "it is handled again" if freed == 1 else "they are handled again, one at a time",
            )
        return freed + parked

    def _acquire(self) -> bool:
        """Acquire the lock of the claimer. After the loss of its session, claims move to the number of the new one."""
        if not self._claimer.acquire():
            return False
        number = self._claimer.number
        if number is None:
            return False
        if self._number != number:
            with self._moving:
                if self._number:
                    with explained(self._database.where), self._claimer.transaction() as connection:
                        claims.adopt(connection, list(self._held), self._number, number)
                self._number = number
        return True

    def _recorded(self, record: Callable[[int], bool]) -> bool:
        """Record an outcome by the number of the claim; once more if the claims have moved to another meanwhile."""
        number = self._number
        while not record(number):
            with self._moving:
                if self._number == number:
                    return False
                number = self._number
        return True

    @contextmanager
    def handling(self, rows: Sequence[Row]) -> Iterator[Connection]:
        """
        Run the transaction of an effect: at its end the rows are marked as done, and both are committed or neither.

        On SQLite it takes the lock to write at its first statement. An exception leaves the rows claimed: `fail` or
        `release` them, or handle them again.

        Raises:
            ClaimLostError: A row is no longer claimed by this process; everything was rolled back.
            InboxUnavailableError: The database cannot be used now; everything was rolled back, or, if the connection
                was lost during the commit, perhaps committed. If the rows are then handled again, their claim is lost.
            InboxError: The handler has ended the transaction, or caught an error that ended it.
        """
        with self._database.transaction() as connection:
            with lent(connection, self._database.where, is_marked=True):
                yield connection
            self._mark(connection, rows)
        self._forget(rows)

    def mark_done(self, rows: Sequence[Row]) -> None:
        """Mark rows as done whose handlers needed no transaction."""
        with self.handling(rows):
            pass

    def _mark(self, connection: Connection, rows: Sequence[Row]) -> None:
        seqs = [row.seq for row in rows]
        with explained(self._database.where, is_outage):
            now = self._clock()
            if not self._recorded(lambda number: outcomes.mark_done(connection, seqs, number, now)):
                if not is_sealed(connection):
                    raise InboxError(ENDED)
                raise self._claim_lost(rows)
            if self.rules.ordered:
                runs = [RunKey.of(row.event) for row in rows if row.may_hold_up]
                let_go_on(connection, self.rules.name, runs)

    def _claim_lost(self, rows: Sequence[Row]) -> ClaimLostError:
        self._forget(rows)
        seqs = ", ".join(str(row.seq) for row in rows)
        return ClaimLostError(f"the inbox {self._database.where}: this process has lost its claim of event {seqs}")

    def fail(self, row: Row, error: BaseException) -> Failed:
        """Record that a handler failed: the row is tried again after a pause, or is dead after `max_tries`."""
        tries, now = row.tries + 1, self._clock()
        pause, reason = self.rules.after_failure(error, tries, self._random)
        due_at = None if pause is None else now + pause
        with explained(self._database.where), self._database.transaction() as connection:
            is_ours = self._recorded(
                lambda number: outcomes.mark_failed(
                    connection,
                    row.seq,
                    number,
                    error=error,
                    tries=tries,
                    now=now,
                    due_at=due_at,
                    reason=reason,
                    secrets=self._database.secrets,
                )
            )
        if not is_ours:
            raise self._claim_lost([row])
        self._forget([row])
        return Failed(tries, due_at)

    def release(self, rows: Sequence[Row]) -> None:
        """Give rows back that were not handled: their start does not count."""
        if rows:
            with explained(self._database.where), self._database.transaction() as connection:
                seqs = [row.seq for row in rows]
                self._recorded(lambda number: claims.give_back(connection, seqs, number))
        self._forget(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._held.discard(row.seq)
            if self._alone == row.seq:
                self._alone = None

    def prune(self, limit: int = 1000) -> int:
        """
        Delete up to `limit` handled rows whose repetition cannot come any more, and return their number.

        It is called now and then, in small steps, so that no other statement waits long.
        """
        with explained(self._database.where), self._database.transaction() as connection:
            return pruning.prune(connection, self.rules, limit, self._clock())

    def is_any_doubted(self) -> bool:
        """Return True if a provisional report is due and waits for the proof that no firm one is on its way."""
        if not self.rules.doubts:
            return False
        with self._database.reading() as connection:
            return provisional.is_any_doubted(connection, self.rules, self._clock())

    def believe(self, until: float) -> None:
        """
        Have the provisional reports handled that were due at a time, unless a firm one contradicts them.

        The process that receives calls it, when everything is stored that was on the bus at that time.

        Raises:
            InboxUnavailableError: They still wait; a retry may succeed.
        """
        with self._storing.transaction() as connection:
            provisional.believe(connection, self.rules, until, self._clock())

    def next_due(self) -> float | None:
        """
        Return when the next row that is neither claimed nor parked is due; None if there is none.

        A provisional report that is due does not count before it is believed.
        """
        with self._database.reading() as connection:
            return claims.next_due(connection, self.rules, self._clock())

    def counts(self) -> Counts:
        """Return the numbers of unfinished rows."""
        with self._database.reading() as connection:
            return count(connection, self.rules.name)

    def close(self) -> None:
        """Release the locks, as the end of the process does: claimed rows are those of a consumer that died."""
        self._claimer.release()
        self._intake.release()
        self._held.clear()
        self._alone = None
