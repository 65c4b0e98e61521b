"""
Errors as programs get them: a JSON object by RFC 9457.

Not here: the page that explains an error to people, which is a template.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response


class Problem(msgspec.Struct, frozen=True):
    """Why a request has no answer."""

    title: str
    status: int
    detail: str
    """What was found, and what was expected."""
    type: str = "about:blank"


class ProblemResponse(Response):
    """An answer with a problem."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Store the status, and a sentence about what was found and what was expected."""
        body = msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))
        super().__init__(body, status, dict(headers or {}))
