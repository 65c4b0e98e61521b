"""
The faults of a database: which of them may pass, and the sentence that reports one.

Not here: failures of a handler (outcomes).
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from dkist_processing_core.errors import InboxError, InboxUnavailableError
from dkist_processing_core.text import clean_line

# Classes of SQLSTATE: connection, resources (as a full disk), operator intervention (as a shutdown), system.
_PASSING = ("08", "53", "57P", "58")
_CONFLICT = "40"
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
# The driver gives no SQLSTATE of a connection that fails. Another language of the server's messages is waited for.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|not permitted to log in"
    r"|permission denied|not currently accepting connections|not support SSL|certificate"
    r"|invalid |bad value for|unrecognized configuration parameter"
)


def is_passing(error: BaseException) -> bool:
    """Return True for an error of the database itself that a retry may not meet, such as a restart or a full disk."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return code is not None and code & _PRIMARY in _SQLITE_PASSING
    state = getattr(original, "sqlstate", None)
    if state is None:
        # The driver lost the connection, or got none.
        return error.connection_invalidated or isinstance(error, OperationalError)
    return bool(state.startswith(_PASSING))


def refusal(error: BaseException) -> str | None:
    """Return why PostgreSQL or its driver refuses an address, which no retry changes; None for another error."""
    cause = error.__cause__ or error
    original = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    if isinstance(original, sqlite3.Error) or getattr(original, "sqlstate", None) is not None:
        return None
    reason = clean_line(" ".join(str(original).split()))
    return reason if _REFUSALS.search(reason) else None


def converted(where: str, error: SQLAlchemyError) -> InboxError:
    """Return the error that the inbox raises for one of SQLAlchemy."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    reason = clean_line(" ".join(str(original).split()))
    # Of two transactions that wait for each other, PostgreSQL ends one.
    if is_passing(error) or (getattr(original, "sqlstate", None) or "").startswith(_CONFLICT):
        return InboxUnavailableError(f"the inbox {where} cannot be used now: {reason}")
    return InboxError(f"the inbox {where} has refused a statement: {reason}")


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
        raise converted(where, error) from error
