"""
Long lists of values in statements, which have a limited number of parameters.

Not here: the statements.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY

_PART = 500
_T = TypeVar("_T")


def in_parts(values: Sequence[_T]) -> Iterable[Sequence[_T]]:
    """Yield the values in parts."""
    return (values[first : first + _PART] for first in range(0, len(values), _PART))


def among(connection: Connection, column: Column[Any], values: Sequence[Any]) -> Iterator[ColumnElement[bool]]:
    """
    Yield conditions, each true for the rows that have some of the values in a column, together for those of all values.

    PostgreSQL gets the values as one array, since it would plan a statement with a parameter for each value every time.
    """
    if connection.dialect.name != "postgresql":
        yield from map(column.in_, in_parts(values))
    elif values:
        yield column == any_(literal(list(values), ARRAY(column.type)))
