"""
Timers: work of a consumer at regular times, by one of its processes at a time.

Not here: the threads that do the work (consumer).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from sqlalchemy import Connection, text

from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.inbox.lending import lent
from dkist_processing_core.inbox.locks import held

_ADD = text(
    """
    INSERT INTO dkist_core_timer (consumer, name, next_at) VALUES (:consumer, :name, :next_at)
    ON CONFLICT (consumer, name) DO NOTHING
    """
)
_NEXT = text("SELECT next_at FROM dkist_core_timer WHERE consumer = :consumer AND name = :name")
_MOVE = text("UPDATE dkist_core_timer SET next_at = :next_at WHERE consumer = :consumer AND name = :name")
_MOVE_ON = text(f"{_MOVE.text} AND next_at <= :now")


def next_time(connection: Connection, consumer: str, name: str) -> float | None:
    """Return when a timer is due next, in seconds since 1970; None if no process has had it yet."""
    found: float | None = connection.scalar(_NEXT, {"consumer": consumer, "name": name})
    return found


class Timers:
    """The timers of one consumer, each with a name and a period in seconds."""

    def __init__(self, database: Database, consumer: str, *, clock: Callable[[], float] = time.time) -> None:
        """Store the database and the name of the consumer."""
        self._database = database
        self._consumer = consumer
        self._clock = clock

    def next_at(self, name: str, seconds: float) -> float:
        """Return when a timer is due next, in seconds since 1970; a new one is due after its period."""
        values = {"consumer": self._consumer, "name": name}
        with self._database.reading() as connection:
            found: float | None = connection.scalar(_NEXT, values)
        if found is not None:
            if (latest := self._clock() + seconds) < found:
                # The clock was set back since then.
                self.postpone(name, seconds)
                return latest
            return found
        with explained(self._database.where), self._database.transaction() as connection:
            connection.execute(_ADD, values | {"next_at": self._clock() + seconds})
            added: float = connection.execute(_NEXT, values).scalar_one()
        return added

    @contextmanager
    def due(self, name: str, seconds: float) -> Iterator[Connection | None]:
        """
        Run the transaction of a timer's work, in which the timer moves on; None if it is not due, or another is at it.

        Missed times are not made up for. After an exception nothing has changed, and the timer is still due: `postpone`
        it, or try again after a pause.

        Raises:
            InboxUnavailableError: The database cannot be used now.
        """
        if self.next_at(name, seconds) > self._clock():
            yield None
            return
        with self._database.transaction() as connection:
            if not self._move(connection, name, seconds):
                yield None
                return
            with lent(connection, self._database.where):
                yield connection

    @contextmanager
    def due_apart(self, name: str, seconds: float) -> Iterator[bool]:
        """
        Hold a timer during its work without a transaction, and let it move on afterwards; False as None of `due`.

        Raises:
            InboxUnavailableError: The database cannot be used now.
        """
        # On SQLite, one process of a consumer works at a time.
        is_shared, lock = self._database.dialect == "postgresql", f"timer {self._consumer}\n{name}"
        with held(self._database, lock) if is_shared else nullcontext(enter_result=True) as is_free:
            if not is_free or (found := self.next_at(name, seconds)) > (now := self._clock()):
                yield False
                return
            yield True
            values = {"consumer": self._consumer, "name": name, "now": now, "next_at": _following(found, seconds, now)}
            with explained(self._database.where), self._database.transaction() as connection:
                connection.execute(_MOVE_ON, values)

    def _move(self, connection: Connection, name: str, seconds: float) -> bool:
        values = {"consumer": self._consumer, "name": name}
        lock = " FOR UPDATE SKIP LOCKED" if self._database.dialect == "postgresql" else ""
        with explained(self._database.where):
            found = connection.scalar(text(f"{_NEXT.text}{lock}"), values)
            now = self._clock()
            if found is None or found > now:
                return False
            connection.execute(_MOVE, values | {"next_at": _following(found, seconds, now)})
        return True

    def postpone(self, name: str, pause: float) -> None:
        """Have a timer due after a pause, as after a failure of its work."""
        values = {"consumer": self._consumer, "name": name, "next_at": self._clock() + pause}
        with explained(self._database.where), self._database.transaction() as connection:
            connection.execute(_MOVE, values)


def _following(found: float, seconds: float, now: float) -> float:
    """Return the first time after `now` that is a number of periods after the one that was found."""
    return found + (math.floor((now - found) / seconds) + 1) * seconds
