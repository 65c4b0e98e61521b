"""
One state of the store for several questions, whatever is written meanwhile.

Not here: the questions (questions).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from dkist_processing_core.inbox import Database


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """Read the database as it is at the first statement. Writers are not held up, and nothing can be written."""
    with database.reading() as connection:
        if database.dialect == "postgresql":
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return
        connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")
