"""
Inboxes for tests: empty ones in SQLite and PostgreSQL, with a clock that the test moves.
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from dkist_processing_core.inbox import Database, Inbox
from tests.inbox.parts import Clock, Inboxes, opened
from tests.services.postgres import PostgresServer


@pytest.fixture(scope="session")
def inbox_url(postgres: PostgresServer) -> str:
    """
    The address of a database on the shared server, for the inboxes of all tests.
    """
    postgres.create_database("inbox")
    return postgres.url("inbox", driver="psycopg")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """
    An open database without rows; the test runs on each kind.
    """
    url = None if request.param == "sqlite" else request.getfixturevalue("inbox_url")
    with opened(url) as database:
        yield database


@pytest.fixture
def clock() -> Clock:
    """
    A clock that only the test moves.
    """
    return Clock()


@pytest.fixture
def inboxes(database: Database, clock: Clock) -> Iterator[Callable[..., Inbox]]:
    """
    A function that opens an inbox of a consumer, as another process of it would.
    """
    with closing(Inboxes(database, clock)) as opened:
        yield opened.open
