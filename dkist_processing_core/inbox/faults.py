"""
The faults of a database: which of them may pass, and the sentence that reports one.

Not here: failures of a handler (outcomes).
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from dkist_processing_core.errors import InboxError, InboxUnavailableError
from dkist_processing_core.text import clean_line

# SQLSTATE and its classes: connection, a server that is read-only after a failover, sessions that were idle too long,
# resources (as a full disk), a lock, a statement that was cancelled, operator intervention (as a shutdown), system.
_PASSING = ("08", "25006", "25P03", "25P04", "53", "55P03", "57014", "57P", "58")
_CONFLICT = "40"
# A full disk, a shutdown, a crash of the server, its start.
_OUTAGE = ("53100", "57P01", "57P02", "57P03")
_SQLITE_OUTAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_SQLITE_PASSING = _SQLITE_OUTAGE | {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
}
_PRIMARY = 0xFF
# The driver has no SQLSTATE of a connection that fails, since libpq gives its text alone. A refusal in another language
# of the server is waited for, and logged with its reason.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|not permitted to log in"
    r"|permission denied|not currently accepting connections|not support SSL|certificate"
    r"|invalid |bad value for|unrecognized configuration parameter"
)


def is_passing(error: BaseException) -> bool:
    """Return True for an error of the inbox's own statement that a retry may not meet."""
    return _is_among(error, _PASSING, _SQLITE_PASSING)


def is_outage(error: BaseException) -> bool:
    """
    Return True for an error of a handler's statement that any statement would meet now: a lost connection, a full disk.

    Others may be the statement's own, such as a file that is missing, and would be met again for ever.
    """
    return _is_among(error, _OUTAGE, _SQLITE_OUTAGE)


def _is_among(error: BaseException, states: tuple[str, ...], codes: set[int]) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return code is not None and code & _PRIMARY in codes
    state = getattr(original, "sqlstate", None)
    if state is None:
        # The driver lost the connection, or got none.
        return error.connection_invalidated or isinstance(error, OperationalError)
    return bool(state.startswith(states))


def refusal(error: BaseException) -> str | None:
    """Return why PostgreSQL or its driver refuses an address, which no retry changes; None for another error."""
    cause = error.__cause__ or error
    original = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    if isinstance(original, sqlite3.Error) or getattr(original, "sqlstate", None) is not None:
        return None
    reason = _text_of(original)
    return reason if _REFUSALS.search(reason) else None


def _text_of(original: BaseException) -> str:
    """Return the text of a driver's error in one line, with its further lines, such as hints, in parentheses."""
    first, *others = [" ".join(line.split()) for line in str(original).splitlines() if line.strip()] or [""]
    return clean_line(f"{first} ({' '.join(others)})" if others else first)


def converted(where: str, error: SQLAlchemyError, passes: Callable[[BaseException], bool] = is_passing) -> InboxError:
    """Return the error that the inbox raises for one of SQLAlchemy."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # Of two transactions that wait for each other, PostgreSQL ends one.
    if passes(error) or (getattr(original, "sqlstate", None) or "").startswith(_CONFLICT):
        return InboxUnavailableError(unavailable(where, original))
    return InboxError(f"the inbox {where} has refused a statement: {_text_of(original)}")


def unavailable(where: str, original: BaseException) -> str:
    """Return the sentence that a database cannot be used now, with the reason of the driver."""
    return f"the inbox {where} cannot be used now: {_text_of(original)}{_full_disk_of(where, original)}"


def _full_disk_of(where: str, original: BaseException) -> str:
    """Return the remark that the disk of a file of SQLite is full: its own errors do not always state that."""
    code = getattr(original, "sqlite_errorcode", None)
    if code is None or code & _PRIMARY not in _SQLITE_OUTAGE:
        return ""
    folder = Path(where.removeprefix("sqlite:///")).parent
    with suppress(OSError):
        if os.statvfs(folder).f_bavail == 0:
            return f"; no space is left on its disk: free some in {folder}"
    return ""


@contextmanager
def explained(where: str, passes: Callable[[BaseException], bool] = is_passing) -> Iterator[None]:
    """
    Run the inbox's own statements; in a handler's transaction, only errors that are an outage may pass.

    Raises:
        InboxUnavailableError: The database cannot be reached or written now.
        InboxError: It refuses a statement.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise converted(where, error, passes) from error
