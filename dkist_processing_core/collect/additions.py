"""
Adding rows whose key another process may have added meanwhile, in the same words for both databases.

Not here: rows that are always new (inbox.bulk).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Table, bindparam


def add_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """
    Add rows with the same columns, but for those whose keys are in the table.

    It waits for the end of a transaction that adds a row of the same key.
    """
    if rows:
        connection.execute(_addition(connection.dialect.name, table, tuple(rows[0])), rows)


@cache  # making a statement takes long
def _addition(dialect: str, table: Table, names: tuple[str, ...]) -> Any:
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return insert.values({name: bindparam(name) for name in names}).on_conflict_do_nothing()
