"""
Inboxes for consumers under test: empty ones in SQLite and PostgreSQL, each with a table for effects.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import MetaData, create_engine, text

from tests.consumer.effects import Effects
from tests.services.postgres import PostgresServer


@pytest.fixture(scope="session")
def consumers_url(postgres: PostgresServer) -> str:
    """
    The address of a database on the shared server, for the consumers of all tests.
    """
    postgres.create_database("consumers")
    return postgres.url("consumers", driver="psycopg")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def effects(request: pytest.FixtureRequest) -> Iterator[Effects]:
    """
    An empty database for an inbox and the effects of its handlers; the test runs on each kind.
    """
    if request.param == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('state_dir')}/inbox.db"
    else:
        url = request.getfixturevalue("consumers_url")
    engine = create_engine(url)
    with engine.begin() as connection:
        found = MetaData()
        found.reflect(connection)
        found.drop_all(connection)
        connection.execute(text("CREATE TABLE effect (seq INTEGER, run TEXT, event TEXT)"))
    engine.dispose()
    opened = Effects(url)
    yield opened
    opened.close()
