"""
The loan of a transaction to a handler, which may use it and not end it.

Not here: the transaction itself (database), and the mark that follows the handler in it (inbox).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from sqlalchemy import Connection

from dkist_processing_core.errors import InboxError


@contextmanager
def lent(connection: Connection) -> Iterator[Connection]:
    """
    Lend a connection with an open transaction.

    Raises:
        InboxError: The transaction was ended, by the borrower or by an error that it caught.
    """
    root = connection.get_transaction()
    for name, refuse in _REFUSALS.items():
        setattr(connection, name, refuse)
    try:
        yield connection
    finally:
        for name in _REFUSALS:
            delattr(connection, name)
    if root is None or not root.is_active or connection.get_transaction() is not root:
        msg = "the transaction of a handler was ended before the handler: everything in it is rolled back"
        raise InboxError(msg)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        msg = (
            f"a handler called {name}() of its transaction, which the inbox commits or rolls back: return to commit, "
            "raise an exception to roll back, use begin_nested() for a part of it"
        )
        raise InboxError(msg)

    return refuse


_REFUSALS = {name: _refusal(name) for name in ("begin", "close", "commit", "rollback")}
