"""
The sessions on PostgreSQL: how their transactions begin and end, and that no fork keeps one open.

Not here: the transactions themselves, and the connections to SQLite (database).
"""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from dkist_processing_core.inbox.lending import SEAL_ON_SERVER
from dkist_processing_core.process.descriptors import OwnSockets

IS_READING = "dkist_core_is_reading"
"""What the information about a connection holds while its statements begin no transaction."""
_BEGIN = f"BEGIN; {SEAL_ON_SERVER}".encode()


def prepare(engine: Engine) -> None:
    """Have an engine begin its transactions, whose driver does not."""
    event.listen(engine, "connect", _leave_to_no_fork)
    # With the event "begin", SQLAlchemy would look for listeners at each statement, also at a handler's.
    engine.dialect.do_begin = _begin  # type: ignore[method-assign]
    engine.dialect.do_commit = _commit  # type: ignore[method-assign]


def _leave_to_no_fork(connection: Any, record: ConnectionPoolEntry) -> None:
    """End the session, and with it its lock, when this process ends, also if a fork of it goes on."""
    record.info["sockets"] = OwnSockets([connection.fileno()])


def _begin(dbapi_connection: PoolProxiedConnection) -> None:
    """Begin a transaction, and seal it in the same exchange with the server."""
    if not dbapi_connection.info.get(IS_READING):
        _exchange(dbapi_connection, _BEGIN)


def _commit(dbapi_connection: PoolProxiedConnection) -> None:
    _exchange(dbapi_connection, b"COMMIT")


def _exchange(dbapi_connection: PoolProxiedConnection, statement: bytes) -> None:
    """Execute a statement without a result; by a cursor of the driver it would take twice the time, for each event."""
    driver: Any = dbapi_connection.driver_connection
    result = driver.pgconn.exec_(statement)
    if result.error_message:
        from psycopg.errors import error_from_result  # noqa: PLC0415 - SQLite does without this driver

        raise error_from_result(result)
