"""
What the tests of the inbox share: a clock, arrivals, and the effects of handled rows.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Connection, text

from dkist_processing_core.events import CONTENT_TYPE, Event, encode
from dkist_processing_core.inbox import Arrival, Database, Inbox, Row, Rules
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.waiting import wait_until

TABLES = "dkist_core_inbox, dkist_core_consumer, dkist_core_timer"


class Clock:
    """
    A clock that only the test moves.
    """

    def __init__(self) -> None:
        """
        Start at an arbitrary time.
        """
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """
        Return the time.
        """
        return self.now


class Inboxes:
    """
    The inboxes that a test has opened.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """
        Nothing is open yet.
        """
        self._database, self._clock = database, clock
        self._open: list[Inbox] = []

    def open(self, name: str = "consumer", **rules: Any) -> Inbox:
        """
        Return a new inbox of a consumer.
        """
        self._open.append(Inbox(self._database, Rules(name, **rules), clock=self._clock))
        return self._open[-1]

    def close(self) -> None:
        """
        Close all of them.
        """
        for inbox in self._open:
            inbox.close()


def die(inbox: Inbox) -> None:
    """
    End the process of an inbox as SIGKILL does. A server of PostgreSQL notices the end of a session a moment later.
    """
    numbers = {inbox._claimer.number, inbox._intake.number}
    inbox.close()
    if inbox._database.dialect == "postgresql":
        wait_until(lambda: numbers.isdisjoint(locked(inbox._database)), every=0.001)


def locked(database: Database) -> list[int]:
    """
    Return the numbers of the advisory locks of PostgreSQL.
    """
    query = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
    with database.reading() as connection:
        return list(connection.scalars(text(query)))


@contextmanager
def opened(url: str | None) -> Iterator[Database]:
    """
    Open a database without rows, and with a table for effects.
    """
    with closing(Database.open(url, read_settings())) as database:
        with database.transaction() as transaction:
            if url is not None:
                transaction.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY"))
            transaction.execute(text("DROP TABLE IF EXISTS effect"))
            transaction.execute(text("CREATE TABLE effect (seq INTEGER)"))
        yield database


def arrival(event: Event, *, is_wanted: bool = True) -> Arrival:
    """
    Return the message of an event as it arrives.
    """
    return Arrival(event, encode(event), CONTENT_TYPE, is_wanted=is_wanted)


def failures(count: int, **facts: Any) -> list[Arrival]:
    """
    Return the arrivals of failures of as many tasks.
    """
    return [arrival(failed(f"Task{number}", **facts)) for number in range(count)]


def dead_letter(inbox: Inbox, count: int, error: Exception) -> list[int]:
    """
    Have as many rows die of an error, and return their numbers.
    """
    rows = inbox.claim(count)
    for row in rows:
        inbox.fail(row, error)
    return [row.seq for row in rows]


def take_effect(transaction: Connection, row: Row) -> None:
    """
    Write the effect of a row.
    """
    transaction.execute(text("INSERT INTO effect VALUES (:seq)"), {"seq": row.seq})


def effects(database: Database) -> list[int]:
    """
    Return the rows whose effects were committed.
    """
    with database.reading() as connection:
        return list(connection.scalars(text("SELECT seq FROM effect ORDER BY seq")))
