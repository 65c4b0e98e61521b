"""
The outcomes of one request to a collector, by the OTLP specification (https://opentelemetry.io/docs/specs/otlp/).

The specification counts 401, 403, 404 and their like as final for a request. They are about the sender or the address,
and not about the request: by one wrong header all telemetry of a host would be dropped. So they have an outcome of
their own (`Denied`). Not here: sending (over_http, over_grpc), and what follows from an outcome (otlp.delivery).
"""

from dataclasses import dataclass
from http import HTTPStatus


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
class Denied:
    """The collector takes nothing from this sender, or is none: credentials or endpoint have to be corrected."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The collector refuses the request, which must not be sent again."""

    reason: str
    is_too_large: bool = False
    """Whether it may accept parts of the request."""


Outcome = Delivered | Unavailable | Denied | Refused

RETRYABLE_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
DENYING_STATUSES = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    }
)
_RETRYABLE_CODES = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
# A gRPC client has UNIMPLEMENTED also for an answer with 404 (https://grpc.io/docs/guides/status-codes/).
_DENYING_CODES = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
# The texts of the implementations in C++, Go and Java.
_TOO_LARGE = ("larger than max", "exceeds maximum size", "too large")


def outcome_of_code(code: str, reason: str, details: str, delay: float | None) -> Unavailable | Denied | Refused:
    """
    Return the outcome of a request over gRPC that has failed.

    Args:
        code: The name of the status, such as `UNAVAILABLE`.
        reason: The reason, for an operator.
        details: The collector's own message.
        delay: The seconds in its `RetryInfo`; None without one.
    """
    is_exhausted = code == "RESOURCE_EXHAUSTED"
    if code in _RETRYABLE_CODES or (is_exhausted and delay is not None):
        return Unavailable(reason, delay)
    if code in _DENYING_CODES:
        return Denied(reason)
    return Refused(reason, is_exhausted and any(text in details for text in _TOO_LARGE))
