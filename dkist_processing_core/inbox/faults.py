"""
The faults of a database: which of them may pass, and the sentence that reports one.

Not here: failures of a handler (outcomes).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dkist_processing_core.errors import InboxError, InboxUnavailableError
from dkist_processing_core.text import clean_line

# Classes of SQLSTATE: connection, resources (as a full disk), operator intervention (as a shutdown), system.
_PASSING = ("08", "53", "57P", "58")
_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
}
_PRIMARY = 0xFF


def is_passing(error: BaseException) -> bool:
    """Return True for an error of the database itself that a retry may not meet, such as a restart or a full disk."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return code is not None and code & _PRIMARY in _SQLITE_PASSING
    state = getattr(original, "sqlstate", None)
    if error.connection_invalidated or (state is None and type(original).__name__ == "OperationalError"):
        return True
    return state is not None and state.startswith(_PASSING)


def sentence_of(error: BaseException) -> str:
    """Return the reason that a driver states, on one line."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return clean_line(" ".join(str(original).split()))


@contextmanager
def explained(where: str) -> Iterator[None]:
    """
    Run the inbox's own statements.

    Raises:
        InboxUnavailableError: The database cannot be reached or written now.
        InboxError: It refuses a statement.
    """
    try:
        yield
    except SQLAlchemyError as error:
        kind = InboxUnavailableError if is_passing(error) else InboxError
        verb = "cannot be used now" if is_passing(error) else "refused a statement"
        msg = f"the inbox {where} {verb}: {sentence_of(error)}"
        raise kind(msg) from error
