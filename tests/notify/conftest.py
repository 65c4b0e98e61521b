"""
Databases for notices, and receivers of them.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from tests.notify.receivers import HttpReceiver
from tests.services.postgres import PostgresServer

_TABLES = (
    "dkist_core_inbox, dkist_core_consumer, dkist_core_timer, dkist_core_occurrence, dkist_core_route, dkist_core_mute"
)


@pytest.fixture(scope="session")
def notify_url(postgres: PostgresServer) -> str:
    """
    The address of a database on the shared server.
    """
    postgres.create_database("notify")
    return postgres.url("notify", driver="psycopg")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """
    The database of the settings, without rows; the test runs on each kind.
    """
    if request.param == "postgresql":
        monkeypatch.setenv("DKIST_CORE_INBOX", request.getfixturevalue("notify_url"))
    with closing(Database.open(None, read_settings())) as database:
        if request.param == "postgresql":
            with database.transaction() as transaction:
                transaction.execute(text(f"TRUNCATE {_TABLES} RESTART IDENTITY"))
        yield database


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    """
    A webhook on a free port of loopback.
    """
    with HttpReceiver() as receiver:
        yield receiver
