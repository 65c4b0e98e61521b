"""
What is declared of one setting.

Not here: the settings themselves (declarations).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Declaration(NamedTuple):
    """One setting."""

    default: Any
    kind: Callable[[str], Any]
    """Reads the text of the variable; raises a ValueError for a text that needs to be interpreted."""
    meaning: str
    expected: str
    bounds: Mapping[str, Any] = MappingProxyType({})
    """The limits of its value or its length, by their names in pydantic."""
