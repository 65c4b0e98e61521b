"""
What the server of the dashboard measures: the times of its answers, and the viewers of live pages.

The names are those of OpenTelemetry's conventions for HTTP. Not here: the metrics of the consumer and of the store,
which the same address serves (health).
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dkist_processing_core import semconv
from dkist_processing_core.metrics.accumulator import Accumulator
from dkist_processing_core.metrics.declarations import REQUEST_DURATION, VIEWER_ACTIVE, VIEWER_DROPPED
from dkist_processing_core.metrics.measurement import Measurement, measured

if TYPE_CHECKING:
    from starlette.routing import Route

LIVE = "/live"
"""The path of the streams, which last as long as their viewers look."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_OTHER_METHOD = "_OTHER"
_INTERNAL_ERROR = 500


class Measures:
    """The figures of one dashboard. Several threads may read them."""

    def __init__(self, viewers: Callable[[], int]) -> None:
        """Begin at zero; `viewers` returns the number of present viewers of live pages."""
        self._viewers = viewers
        self._durations = Accumulator(REQUEST_DURATION, {})
        self._dropped = Accumulator(VIEWER_DROPPED, {})
        # A counter that begins with its first event would hide this event from a rate.
        self._dropped.add({}, 0.0)

    def drop(self) -> None:
        """Count a client that did not read."""
        self._dropped.add({})

    def read(self) -> list[Measurement]:
        """Return the present values."""
        viewers = measured(VIEWER_ACTIVE, self._viewers())
        return [self._durations.measurement(), viewers, self._dropped.measurement()]

    def timed(self, app: ASGIApp) -> ASGIApp:
        """Return an application of which the answers are timed, except streams."""

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            status = _INTERNAL_ERROR

            async def send_and_note(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            began = time.perf_counter()
            try:
                await app(scope, receive, send_and_note)
            finally:
                if scope["path"] != LIVE:
                    self._durations.add(_attributes(scope, status), time.perf_counter() - began)

        return call


def _attributes(scope: Scope, status: int) -> dict[str, str]:
    """Return the attributes of an answer, of which there are few: neither paths nor methods of strangers."""
    found = {
        semconv.HTTP_REQUEST_METHOD: scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD,
        semconv.URL_SCHEME: scope["scheme"],
        semconv.HTTP_STATUS: str(status),
    }
    route: Route | None = scope.get("route")
    if route is not None:
        found[semconv.HTTP_ROUTE] = route.path
    if status >= _INTERNAL_ERROR:
        found[semconv.ERROR_TYPE] = str(status)
    return found
