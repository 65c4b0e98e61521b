"""
The application of the dashboard: which path leads to which page, and what each request passes before.

Not here: the pages (pages), and the server (server).
"""

from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from dkist_processing_core.dashboard import guards
from dkist_processing_core.dashboard.access import Access, role_of
from dkist_processing_core.dashboard.asked import PageFunction
from dkist_processing_core.dashboard.live import Live
from dkist_processing_core.dashboard.pages import now
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.dashboard.static_files import StaticFiles
from dkist_processing_core.dashboard.viewing import OpenQuestions, Viewing

PAGES: dict[str, PageFunction] = {"/": now.page}
"""The page of each path."""


class Application:
    """The ASGI application of one dashboard."""

    def __init__(self, site: Site, questions: OpenQuestions) -> None:
        """Store its parts; `questions` opens one state of the store."""
        self._viewing = Viewing(PAGES, site, questions)
        self.live = Live(self._viewing.parts, self._viewing.revision)
        routes: list[BaseRoute] = [Route(path, partial(self._page, path), methods=["GET"]) for path in PAGES]
        routes += [Route("/live", self.live, methods=["GET"]), Mount("/static", StaticFiles())]
        # A request passes them in this order, the headers first, which are also those of an internal error.
        self.app = guards.Headers(Starlette(routes=routes, middleware=[Middleware(Access)]))

    def _page(self, path: str, request: Request) -> Response:
        """Return a page. Starlette calls this in a thread, since the store is read synchronously."""
        return HTMLResponse(*self._viewing.whole(path, dict(request.query_params), role_of(request.scope)))
