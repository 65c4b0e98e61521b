"""
Inserting many rows by few statements, into each kind of database.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Column, Double, Engine, LargeBinary, MetaData, Table, Text, create_engine

from dkist_processing_core.inbox import bulk
from tests.services.postgres import PostgresServer

TABLE = Table(
    "bulk",
    MetaData(),
    Column("number", BigInteger),
    Column("text", Text),
    Column("is_true", Boolean),
    Column("seconds", Double),
    Column("body", LargeBinary),
    Column("key", Text, unique=True),
)
COLUMNS = tuple(column.name for column in TABLE.columns)
VALUES = st.tuples(
    st.none() | st.sampled_from([1, -(2**40)]),
    st.none() | st.sampled_from(["", "é%s?", "b'"]),
    st.none() | st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.none() | st.binary(max_size=3),
)


@pytest.fixture(scope="module")
def bulk_url(postgres: PostgresServer) -> str:
    """
    The address of a database on the shared server.
    """
    postgres.create_database("bulk")
    return postgres.url("bulk", driver="psycopg")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """
    A database with the empty table.
    """
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("bulk_url")
    engine = create_engine(url)
    TABLE.metadata.create_all(engine)
    yield engine
    TABLE.metadata.drop_all(engine)
    engine.dispose()


@given(rows=st.lists(VALUES, max_size=400), is_equal=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_all_rows_are_inserted_with_their_values(engine: Engine, rows: list[Any], *, is_equal: bool) -> None:
    """
    Also if some columns have the same value in all rows, which are sent once.
    """
    rows = [(*(rows[0] if is_equal else row), f"k{place}") for place, row in enumerate(rows)]
    with engine.connect() as connection:
        assert bulk.insert(connection, TABLE, COLUMNS, rows) == len(rows)
        assert sorted(connection.execute(TABLE.select()).all(), key=lambda row: int(row.key[1:])) == rows


def test_rows_with_known_values_are_passed_over(engine: Engine) -> None:
    """
    They are not counted; truth values may be given as numbers.
    """
    with engine.connect() as connection:
        columns = ("is_true", "key")
        assert bulk.insert(connection, TABLE, columns, [(1, "a"), (0, "b")], unless_known=("key",)) == 2
        assert bulk.insert(connection, TABLE, columns, [(True, "b"), (True, "c")], unless_known=("key",)) == 1
        found = connection.execute(TABLE.select().order_by(TABLE.c.key)).all()
        assert [(row.is_true, row.key) for row in found] == [(True, "a"), (False, "b"), (True, "c")]
