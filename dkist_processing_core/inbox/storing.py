"""
Storing arrivals in transactions: in the inbox for a worker, or handled at once.

Not here: the rows and their statements (arrivals), and who receives the messages (consumer).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection

from dkist_processing_core.errors import InboxError, InboxLostError, InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import arrivals
from dkist_processing_core.inbox.arrivals import Arrival, Stored
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.inbox.lending import IS_LENT, lent
from dkist_processing_core.inbox.locks import Lock
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.text import redact

HandleEvents = Callable[[Sequence[Event], Connection], None]
"""Handles events in an open transaction."""
_DEAD = "consumer %r: %s is the dead letter i%s: %s; `dkist-core dead-letters show` shows it"
logger = logging.getLogger("dkist_processing_core.inbox")


class _HandlerFailedError(Exception):
    """The function that handles events has raised an exception, which is the cause of this one."""


class Storing:
    """The transactions of the process that stores the arrivals of a consumer."""

    def __init__(self, database: Database, rules: Rules, lock: Lock, clock: Callable[[], float]) -> None:
        """Store the parts; transactions use the session of the lock, so that no two processes store at a time."""
        self._database = database
        self._rules = rules
        self._lock = lock
        self._clock = clock

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """
        Run a transaction of the process that holds the lock.

        Raises:
            InboxUnavailableError: Nothing was stored; a retry may succeed.
        """
        transaction = self._database.transaction if self._lock.number is None else self._lock.transaction
        with explained(self._database.where), transaction() as connection:
            yield connection

    def store(self, arrived: Sequence[Arrival], handle: HandleEvents | None = None) -> Stored:
        """
        Store arrivals in one transaction; after it they may be acknowledged.

        If the database refuses one of them, they are stored one by one, and that one becomes a dead letter.

        Args:
            arrived: The arrivals.
            handle: Handles the events in the same transaction, so that no worker has to, unless one of them has arrived
                before, or this fails. For a consumer of every report whose order does not matter. It must not be given
                if an earlier process may have ended because of these events: no start is counted.

        Raises:
            InboxUnavailableError: Not all are known to be stored; a retry may succeed.
        """
        if handle is not None and (handled := self._store_handled(arrived, handle)) is not None:
            return handled
        try:
            return self._store(arrived)
        except (InboxUnavailableError, InboxLostError):
            raise
        except InboxError as error:
            if len(arrived) > 1:
                each = [self.store([arrival]) for arrival in arrived]
                return Stored(*(sum(getattr(one, name) for one in each) for name in ("new", "repeated", "dead")))
            return self._store_refused(arrived[0], redact(str(error), also=self._database.secrets))

    def _store(self, arrived: Sequence[Arrival]) -> Stored:
        with self.transaction() as connection:
            return arrivals.store(connection, self._rules, arrived, self._clock())

    def _store_handled(self, arrived: Sequence[Arrival], handle: HandleEvents) -> Stored | None:
        """Handle and store arrivals in one transaction; return None if they are to be stored for a worker instead."""
        events = [arrival.event for arrival in arrived if arrival.event is not None]
        if not events:
            return None
        try:
            with self.transaction() as connection:
                self._call(handle, events, connection)
                return arrivals.store_handled(connection, self._rules, arrived, self._clock())
        except (InboxUnavailableError, InboxLostError):
            raise
        except (_HandlerFailedError, arrivals.RepeatedError, InboxError) as error:
            # A worker meets an error of the function again, and records it.
            logger.debug("consumer %r: %d events are handled later", self._rules.name, len(events), exc_info=error)
            return None

    def _call(self, handle: HandleEvents, events: Sequence[Event], connection: Connection) -> None:
        try:
            with lent(connection, self._database.where):
                handle(events, connection)
        except InboxUnavailableError:
            raise
        except Exception as error:
            raise _HandlerFailedError from error
        finally:
            # The session of the lock lives on.
            connection.execution_options(**{IS_LENT: False})

    def _store_refused(self, arrival: Arrival, reason: str) -> Stored:
        """Store a message that the database refuses as an event."""
        stored = self._store([arrival.refused(reason)])
        with self._database.reading() as connection:
            seq = arrivals.seq_of_refused(connection, self._rules, arrival)
        log_dead(self._rules, "a message", seq, reason)
        return replace(stored, dead=0)


def log_dead(rules: Rules, what: str, seq: int | None, reason: str) -> None:
    """Log that a row is a dead letter."""
    logger.error(_DEAD, rules.name, what, seq, reason)
