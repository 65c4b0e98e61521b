"""
The outcomes of one request to a collector, by the OTLP specification (https://opentelemetry.io/docs/specs/otlp/).

Not here: how each protocol answers (over_http, over_grpc), and what follows from it (otlp.delivery).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivered:
    """The collector has accepted the request."""

    rejected: int = 0
    """How many items of it the collector has dropped; they must not be sent again."""
    message: str = ""
    """The collector's reason for that, or a warning if it has dropped nothing."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The same request may succeed later."""

    reason: str
    after: float | None = None
    """How many seconds to wait, if the collector names a time."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The collector refuses the request, which must not be sent again."""

    reason: str
    is_too_large: bool = False
    """Whether it may accept parts of the request."""


Outcome = Delivered | Unavailable | Refused
