"""
What is declared of an endpoint: its path, its parameters, and the type of its answer.

Not here: the endpoints themselves (endpoints).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dkist_processing_core.dashboard.asked import Asked
from dkist_processing_core.dashboard.backend import Freshness

ROOT = "/api/v1/"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an endpoint."""

    asked: Asked
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query."""

    name: str
    meaning: str
    is_required: bool = False
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that reads."""

    name: str
    meaning: str
    answer: type
    call: Callable[[Request], Any]
    """Returns the values of the answer, as JSON values or as objects with these attributes."""
    parameters: tuple[Parameter, ...] = ()

    @property
    def path(self) -> str:
        """The path."""
        return f"{ROOT}{self.name}"
