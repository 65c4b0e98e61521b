"""
Inserting many rows by few statements.

Not here: the statements that insert single rows.
"""

from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Double, Integer, LargeBinary, Table, Text

# The most that SQLite accepts in a statement before its release 3.32.
_MOST_PARAMETERS = 999
_TYPES = {
    Text: "text",
    Boolean: "boolean",
    Double: "float8",
    Integer: "integer",
    BigInteger: "bigint",
    LargeBinary: "bytea",
}
# The driver of SQLite takes longer for truth values, so that rows may have numbers instead.
_TRUTH = {None: None, 0: False, 1: True}


_Columns = tuple[str, ...]
_Rows = Sequence[Sequence[Any]]


def insert(
    connection: Connection,
    table: Table,
    columns: _Columns,
    rows: _Rows,
    *,
    unless_known: _Columns = (),
    often_equal: Collection[str] = (),
) -> int:
    """
    Insert rows, and return their number.

    Args:
        connection: The connection, with an open transaction.
        table: The table.
        columns: The names of the columns that have values.
        rows: The values of each row, in the order of the columns.
        unless_known: Columns with a unique index: rows are left out whose values in these the table has already.
        often_equal: Columns, but not all, that often have the same value in all rows, which is then sent once.
    """
    if not rows:
        return 0
    end = f"ON CONFLICT ({', '.join(unless_known)}) DO NOTHING" if unless_known else ""
    if connection.dialect.name == "postgresql":
        return _insert_on_server(connection, table, columns, rows, end, often_equal)
    most = _MOST_PARAMETERS // len(columns)
    parts = (rows[first : first + most] for first in range(0, len(rows), most))
    return sum(
        connection.exec_driver_sql(_of_rows(table, columns, len(part), end), tuple(chain.from_iterable(part))).rowcount
        for part in parts
    )


def _insert_on_server(
    connection: Connection, table: Table, columns: _Columns, rows: _Rows, end: str, often_equal: Collection[str]
) -> int:
    """Insert rows by one statement, to which PostgreSQL answers once, with an array for each column."""
    equal: list[str] = []
    others: list[str] = []
    values: list[Any] = []
    arrays: list[list[Any]] = []
    for name, column in zip(columns, zip(*rows, strict=True), strict=True):
        converted = _converted(table.c[name].type, column)
        # The driver converts each value of an array by itself.
        if name in often_equal and converted.count(converted[0]) == len(rows):
            equal.append(name)
            values.append(converted[0])
        else:
            others.append(name)
            arrays.append(converted)
    statement = _of_arrays(table, tuple(equal), tuple(others), end)
    return connection.exec_driver_sql(statement, (*values, *arrays)).rowcount


def _converted(kind: object, column: Sequence[Any]) -> list[Any]:
    """Return values of one class: PostgreSQL refuses an array of several."""
    if isinstance(kind, Boolean):
        return list(map(_TRUTH.get, column))
    if isinstance(kind, Double):
        return [value if value is None else float(value) for value in column]
    return list(column)


@lru_cache(maxsize=256)
def _of_arrays(table: Table, equal: _Columns, others: _Columns, end: str) -> str:
    kinds = {name: _TYPES[type(table.c[name].type)] for name in (*equal, *others)}
    values = ", ".join((*(f"%b::{kinds[name]}" for name in equal), *others))
    arrays = ", ".join(f"%b::{kinds[name]}[]" for name in others)
    source = f"SELECT {values} FROM unnest({arrays}) AS arrived ({', '.join(others)})"  # noqa: S608 - names of columns
    return _insertion(table, (*equal, *others), source, end)


@cache
def _of_rows(table: Table, columns: _Columns, count: int, end: str) -> str:
    """
    Return a statement for that many rows.

    For each statement, the driver of SQLite gives the interpreter's lock away; if another thread takes it then, this
    one waits to get it back, usually for up to 5 ms.
    """
    return _insertion(table, columns, "VALUES " + ", ".join([f"({', '.join('?' * len(columns))})"] * count), end)


def _insertion(table: Table, columns: _Columns, source: str, end: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {source} {end}"
