"""
The health and the metrics of the dashboard's process, for programs that monitor it.

`/health/live` answers as long as the process serves. `/health/ready` also uses bus and store: the status is 503 while
one of them cannot be used, and the body names it. Not here: what is measured (consumer, collect).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dkist_processing_core.dashboard.backend import Backend
from dkist_processing_core.dashboard.http.problems import ProblemResponse
from dkist_processing_core.errors import DKISTProcessingCoreError

_UNAVAILABLE = 503
_PATIENCE_SECONDS = 10.0
READY_SECONDS = 5.0
"""The longest time of an answer about what can be used; a store that does not answer until then cannot."""


class Readiness(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Whether the dashboard can show what happens."""

    bus: str
    """`ok`, `unavailable`, or `not connected yet`."""
    store: str
    """`ok`, `unavailable`, or `not kept up to date`: the log has the reason."""
    unreadable_runs: int = 0
    """The number of runs that are not kept up to date, since their reports cannot be read; all others are."""

    @property
    def is_good(self) -> bool:
        """Whether both can be used."""
        return self.bus == self.store == "ok"


class HealthRoutes:
    """The routes about health and metrics. The health needs no thread of the pages, which may all wait for a store."""

    def __init__(self, backend: Backend) -> None:
        """Store where the facts are from."""
        self._backend = backend
        self._thread = ThreadPoolExecutor(1, "dkist-core-health")
        self.routes = [
            Route("/health/live", self._live, methods=["GET"]),
            Route("/health/ready", self._ready, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]

    async def _live(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _: Request) -> Response:
        found = Readiness(self._backend.bus_state, "unavailable")
        reading = asyncio.get_running_loop().run_in_executor(self._thread, self._readiness)
        with suppress(TimeoutError):
            found = await asyncio.wait_for(reading, READY_SECONDS)
        status = 200 if found.is_good else _UNAVAILABLE
        return Response(msgspec.json.encode(found) + b"\n", status, media_type="application/json")

    def _readiness(self) -> Readiness:
        bus = self._backend.bus_state
        try:
            with self._backend.questions() as questions:
                stale = self._backend.stale_runs(questions)
        except DKISTProcessingCoreError:
            return Readiness(bus, "unavailable")
        return Readiness(bus, "not kept up to date" if self._backend.has_fault else "ok", stale)

    def _metrics(self, request: Request) -> Response:
        snapshot = self._backend.snapshot
        if snapshot is None:
            return ProblemResponse(_UNAVAILABLE, "the store is not open yet, and nothing is measured")
        found = snapshot.rendered(request.headers.get("accept", ""), patience=_PATIENCE_SECONDS)
        if found is None:
            return ProblemResponse(_UNAVAILABLE, "an earlier request for metrics is not answered yet")
        body, media_type = found
        return Response(body, headers={"Content-Type": media_type})
