"""
Long lists of values in parts, since a statement has a limited number of parameters.

Not here: the statements.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

_PART = 500
_T = TypeVar("_T")


def in_parts(values: Sequence[_T]) -> Iterable[Sequence[_T]]:
    """Yield the values in parts."""
    return (values[first : first + _PART] for first in range(0, len(values), _PART))
