"""
The loan of a transaction to a handler, which may use it and not end it.

Not here: the transaction itself (database), and the mark that follows the handler in it (inbox).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from dkist_processing_core.errors import InboxError
from dkist_processing_core.inbox.faults import explained, is_outage

IS_LENT = "dkist_core_is_lent"
"""The option of a connection whose transaction is lent."""
# A seal belongs to one transaction, and its end removes it, also if the handler has sent `COMMIT; BEGIN`. A savepoint
# on PostgreSQL would take a second transaction id.
SEAL_ON_SERVER = "SET LOCAL dkist_core.seal = 'whole'"
IS_WHOLE_ON_SERVER = "current_setting('dkist_core.seal', true) = 'whole'"
"""The condition that a statement is in the transaction that was sealed."""
SEAL_ON_SQLITE = "SAVEPOINT dkist_core_seal"
_RELEASE_SEAL_ON_SQLITE = "RELEASE dkist_core_seal"
_EXPECTED = "return to commit, raise an exception to roll back, use begin_nested() for a part of it"
ENDED = (
    "a handler has ended its transaction by a statement or by the driver, and what it wrote before is outside of the "
    f"mark of its event: {_EXPECTED}"
)
"""The message of the error of a handler that has ended its transaction below SQLAlchemy."""


@contextmanager
def lent(connection: Connection, where: str, *, is_marked: bool = False) -> Iterator[Connection]:
    """
    Lend a connection with an open transaction on the database that `where` names.

    On PostgreSQL the seal costs an exchange with the server. With `is_marked`, a statement of the caller follows that
    has the condition `IS_WHOLE_ON_SERVER`; if that finds no row, the caller asks `is_sealed`.

    Raises:
        InboxError: The transaction was ended, by the borrower or by an error that it caught.
    """
    root = connection.get_transaction()
    connection.execution_options(**{IS_LENT: True})
    with explained(where, is_outage):
        changes = _sealed(connection)
    for name, refuse in _REFUSALS.items():
        setattr(connection, name, refuse)
    try:
        yield connection
    finally:
        for name in _REFUSALS:
            delattr(connection, name)
    if root is None or not root.is_active or connection.get_transaction() is not root or connection.invalidated:
        msg = "the transaction of a handler was ended before the handler: everything in it is rolled back"
        raise InboxError(msg)
    if changes is None and is_marked:
        return
    with explained(where, is_outage):
        is_whole = is_sealed(connection) if changes is None else _is_whole(connection, changes)
    if not is_whole:
        raise InboxError(ENDED)


def is_sealed(connection: Connection) -> bool:
    """Return False if the transaction that was lent has ended; on SQLite that is known before."""
    return connection.dialect.name == "sqlite" or bool(
        connection.exec_driver_sql(f"SELECT {IS_WHOLE_ON_SERVER}").scalar()
    )


def _sealed(connection: Connection) -> int | None:
    """Return how many rows a connection to SQLite has changed, and seal a transaction that has begun; else None."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        return None
    if driver.in_transaction:
        connection.exec_driver_sql(SEAL_ON_SQLITE)
    return int(driver.total_changes)


def _is_whole(connection: Connection, changes: int) -> bool:
    """Return True if the transaction on SQLite is the one that was lent, and nothing was written outside of it."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        # It begins with its first statement. Without one, the driver has written by itself.
        return bool(driver.total_changes == changes)
    try:
        connection.exec_driver_sql(_RELEASE_SEAL_ON_SQLITE)
    except OperationalError:
        return False
    return True


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        msg = f"a handler called {name}() of its transaction, which the inbox commits or rolls back: {_EXPECTED}"
        raise InboxError(msg)

    return refuse


_REFUSALS = {name: _refusal(name) for name in ("begin", "close", "commit", "rollback")}
