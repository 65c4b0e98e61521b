"""
The API over HTTP: requests to the endpoints, the change of dead letters, and the document.

Not here: the endpoints (endpoints), and the errors as JSON (http.problems).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dkist_processing_core.dashboard.api import of_bus
from dkist_processing_core.dashboard.api.endpoint import ROOT, Endpoint
from dkist_processing_core.dashboard.api.endpoint import Request as EndpointRequest
from dkist_processing_core.dashboard.api.endpoints import ENDPOINTS
from dkist_processing_core.dashboard.api.more_answers import Chosen
from dkist_processing_core.dashboard.api.openapi import document
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.backend import Backend, Freshness
from dkist_processing_core.dashboard.bus.letters import ACTIONS
from dkist_processing_core.dashboard.http.access import Role, role_of
from dkist_processing_core.dashboard.http.problems import ProblemResponse
from dkist_processing_core.dead_letters import Action
from dkist_processing_core.errors import DKISTProcessingCoreError

_BAD_REQUEST, _FORBIDDEN, _UNAVAILABLE = 400, 403, 503
_JSON = "application/json"
_SOON = {"Retry-After": "5"}
AnswerOf = Callable[[str, Mapping[str, str], Callable[[Asked, Freshness], Any]], Any]
"""Calls a function with the request for a path with a query, and returns its result."""


class Api:
    """The routes of the API."""

    def __init__(self, answer_of: AnswerOf, backend: Backend) -> None:
        """Store the function that answers requests from the store, and the bus."""
        self._answer_of = answer_of
        self._backend = backend
        self.routes = [Route(each.path, partial(self._read, each), methods=["GET"]) for each in ENDPOINTS]
        self.routes += [
            Route(f"{ROOT}dead-letters/{action}", partial(self._change, action), methods=["POST"]) for action in ACTIONS
        ]
        self.routes.append(Route("/openapi.json", self._document, methods=["GET"]))

    def _read(self, endpoint: Endpoint, request: Request) -> Response:
        """Return an answer. Starlette calls this in a thread, since the store is read synchronously."""
        query = dict(request.query_params)
        try:
            _check_names(query, endpoint)
            found = self._answer_of(endpoint.path, query, partial(self._answer, endpoint))
        except PageError as error:
            return ProblemResponse(error.status, str(error), _SOON if error.status == _UNAVAILABLE else None)
        except DKISTProcessingCoreError as error:
            return ProblemResponse(_UNAVAILABLE, str(error), _SOON)
        return Response(found, media_type=_JSON)

    def _answer(self, endpoint: Endpoint, asked: Asked, freshness: Freshness) -> bytes:
        found = endpoint.call(EndpointRequest(asked, freshness))
        return msgspec.json.encode(msgspec.convert(found, endpoint.answer, from_attributes=True))

    async def _change(self, action: Action, request: Request) -> Response:
        if role_of(request.scope) is not Role.OPERATOR:
            return ProblemResponse(_FORBIDDEN, "this dashboard, or your role, may only read")
        # Forms of other sites cannot send this type.
        if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
            return ProblemResponse(_BAD_REQUEST, f"expected a body of the type {_JSON}")
        try:
            chosen = msgspec.json.decode(await request.body(), type=Chosen)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return ProblemResponse(_BAD_REQUEST, f'{error}; expected the ids of dead letters, as {{"ids": ["d1"]}}')
        try:
            # A broker may keep it waiting.
            found = await run_in_threadpool(of_bus.changed, self._backend.site, action, chosen.ids)
        except DKISTProcessingCoreError as error:
            return ProblemResponse(_UNAVAILABLE, str(error), _SOON)
        return Response(msgspec.json.encode(found), media_type=_JSON)

    def _document(self, _: Request) -> Response:
        return Response(msgspec.json.encode(document(self._backend.site.version)), media_type=_JSON)


def _check_names(query: Mapping[str, str], endpoint: Endpoint) -> None:
    known = [each.name for each in endpoint.parameters]
    unknown = sorted(set(query) - set(known))
    if unknown:
        msg = f"found the parameter {unknown[0]!r}, expected one of {', '.join(known) or 'none'}"
        raise PageError(msg)
