"""
The locks that end with their process: a session's advisory lock on PostgreSQL, a locked file on SQLite.

Not here: what the rows of a lost lock become (claims).
"""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from dkist_processing_core.errors import InboxError, InboxUnavailableError
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.journal.locks import FileLock

# Keys of PostgreSQL's advisory locks have 64 bits with a sign. Names have the lower half of the positive ones.
_HALF = 1 << 62
# A new table has no statistics, and each index of the inbox is made for its query. A plain scan also marks entries of
# deleted rows, which the next scan passes over.
_PLAIN_PLANS = text("SET enable_seqscan = off; SET enable_bitmapscan = off")


class Lock(Protocol):
    """A lock that its holder keeps until it releases it or ends."""

    @property
    def number(self) -> int | None:
        """The number of the holder, different at each acquisition of a claimer; None if the lock is not held."""

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and return True if it is held now."""

    def transaction(self) -> AbstractContextManager[Connection]:
        """Run a transaction that cannot commit after the lock was lost."""

    def release(self) -> None:
        """Release the lock, as the end of the process does."""


def claimers_number() -> int:
    """Return a new number of a claimer."""
    return _HALF + secrets.randbelow(_HALF)


def number_of(name: str) -> int:
    """Return the number of a lock that has a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % _HALF


class AdvisoryLock:
    """A lock of PostgreSQL, held by a session of its own: it ends with the connection."""

    def __init__(self, database: Database, choose: Callable[[], int]) -> None:
        """Store the database and the choice of a number, which is made at each acquisition."""
        self._database = database
        self._choose = choose
        self._session: Connection | None = None
        self._using = threading.RLock()
        self.number: int | None = None

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and return True if it is held now."""
        with self._using:
            if self._session is not None:
                return True
            self._database.check()
            number = self._choose()
            with explained(self._database.where):
                session = self._database.engine.connect()
                try:
                    with session.begin():
                        is_held = session.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number})
                        if is_held:
                            # A session without the lock is used by workers next, whose handlers have other plans.
                            session.execute(_PLAIN_PLANS)
                except BaseException:
                    session.invalidate()
                    session.close()
                    raise
                if is_held:
                    self._session, self.number = session, number
                else:
                    session.close()
            return bool(is_held)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """
        Run a transaction on the session that holds the lock.

        Raises:
            InboxUnavailableError: The session has ended, or the lock was not acquired.
        """
        self._database.check()
        with self._using:
            if self._session is None:
                msg = f"the inbox {self._database.where}: the session of this consumer has ended"
                raise InboxUnavailableError(msg)
            try:
                with explained(self._database.where), self._session.begin():
                    yield self._session
            except InboxUnavailableError:
                self.release()
                raise

    def release(self) -> None:
        """End the session, and with it the lock."""
        with self._using:
            session, self._session, self.number = self._session, None, None
            if session is not None:
                with suppress(SQLAlchemyError):
                    session.invalidate()
                    session.close()


class LockedFile:
    """A lock on a file beside the database of SQLite, so that the processes of a consumer take turns."""

    def __init__(self, database: Database, name: str) -> None:
        """Store the database; the file has the digest of the name in its own."""
        if database.file is None:
            msg = "only SQLite has a file"
            raise ValueError(msg)
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._database = database
        self._lock = FileLock(Path(f"{database.file}.{digest}.lock"))
        # Two threads that acquire at a time would open the file twice, and the second would find it locked.
        self._acquiring = threading.Lock()
        self._number = claimers_number()

    @property
    def number(self) -> int | None:
        """The number of the holder; None if the lock is not held."""
        return self._number if self._lock.is_held else None

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and return True if it is held now."""
        self._database.check()
        with self._acquiring:
            return self._lock.acquire()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """
        Run a transaction while the lock is held.

        Raises:
            InboxUnavailableError: The lock was not acquired.
        """
        self._database.check()
        if not self._lock.is_held:
            msg = f"the inbox {self._database.where}: another process of this consumer holds the lock"
            raise InboxUnavailableError(msg)
        with explained(self._database.where), self._database.transaction() as connection:
            yield connection

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


@contextmanager
def held(database: Database, name: str) -> Iterator[bool]:
    """
    Hold the lock of a name on PostgreSQL during a block, without a transaction; yield False if another one holds it.

    The lock ends with its session, as the others do.

    Raises:
        InboxUnavailableError: The database cannot be used now.
    """
    database.check()
    number = {"number": number_of(name)}
    with explained(database.where):
        session = database.engine.connect()
    is_held = False
    try:
        with explained(database.where), session.begin():
            is_held = bool(session.scalar(text("SELECT pg_try_advisory_lock(:number)"), number))
        yield is_held
    finally:
        if is_held:
            try:
                database.check()
                with session.begin():
                    session.execute(text("SELECT pg_advisory_unlock(:number)"), number)
            except (InboxError, SQLAlchemyError):
                session.invalidate()
        session.close()


def named_lock(database: Database, name: str) -> Lock:
    """Return the lock of a name, which one process at a time holds."""
    if database.dialect == "postgresql":
        return AdvisoryLock(database, lambda: number_of(name))
    return LockedFile(database, name)
