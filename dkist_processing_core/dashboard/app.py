"""
The application of the dashboard: which path leads to which page, and what each request passes before.

Not here: the pages (pages), and the server (http.server).
"""

from collections.abc import Mapping
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from dkist_processing_core.dashboard.api.routes import Api
from dkist_processing_core.dashboard.asked import PageFunction
from dkist_processing_core.dashboard.backend import Backend
from dkist_processing_core.dashboard.html.live import Live
from dkist_processing_core.dashboard.html.static_files import StaticFiles
from dkist_processing_core.dashboard.html.viewing import SAVE, Viewing
from dkist_processing_core.dashboard.http import login
from dkist_processing_core.dashboard.http.access import Access, role_of
from dkist_processing_core.dashboard.http.guards import LARGEST_BODY, SafeHeaders, SameSite
from dkist_processing_core.dashboard.http.health import HealthRoutes
from dkist_processing_core.dashboard.http.letters_form import LettersForm
from dkist_processing_core.dashboard.http.measures import LIVE, Measures
from dkist_processing_core.dashboard.http.problems import ProblemResponse
from dkist_processing_core.dashboard.options import Options
from dkist_processing_core.dashboard.pages import attempt, bus, compare, failures, now, run, runs, workflow
from dkist_processing_core.text.internal_errors import log_internal_error_once

PAGES: dict[str, PageFunction] = {
    "/": now.page,
    "/attempt": attempt.page,
    "/bus": bus.page,
    "/compare": compare.page,
    "/failures": failures.page,
    "/run": run.page,
    "/runs": runs.page,
    "/workflow": workflow.page,
}
"""The page of each path."""
_PUBLIC = (login.PATH, "/static/", "/health/")
_OF_PROGRAMS = ("/api/", "/openapi.json", LIVE, "/metrics", "/health/")
_SEE_OTHER, _BAD_REQUEST, _UNAUTHORIZED, _INTERNAL, _UNAVAILABLE = 303, 400, 401, 500, 503
# The browser requests the page again.
_SOON = {"Refresh": "5", "Retry-After": "5"}


class Application:
    """The ASGI application of one dashboard."""

    def __init__(self, options: Options, backend: Backend) -> None:
        """Store its parts."""
        self._rules = options.rules
        self._viewing = Viewing(PAGES, options.rules, backend)
        self.live = Live(self._viewing.parts, self._viewing.revision)
        self.measures = Measures(lambda: self.live.viewers)
        routes: list[BaseRoute] = [Route(path, partial(self._page, path), methods=["GET"]) for path in PAGES]
        routes += login.Login(options.rules, self._viewing.login).routes
        routes += LettersForm(backend.site.letters, backend.site.bus_status, options.rules).routes
        routes += [Route(LIVE, self.live, methods=["GET"]), Mount("/static", StaticFiles())]
        routes += HealthRoutes(backend).routes
        routes += Api(self._viewing.answer_of, backend).routes
        # A request passes them in this order. The headers are also those of an internal error.
        middleware = [
            Middleware(TrustedHostMiddleware, allowed_hosts=options.hosts, www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=LARGEST_BODY),
            Middleware(SameSite),
            Middleware(
                Access, rules=options.rules, is_public=lambda path: path.startswith(_PUBLIC), refuse=self._without_role
            ),
        ]
        handlers = {HTTPException: self._refused, ClientDisconnect: self._left, Exception: self._failed}
        self.app = SafeHeaders(Starlette(routes=routes, middleware=middleware, exception_handlers=handlers))

    def _page(self, path: str, request: Request) -> Response:
        """Return a page. Starlette calls this in a thread, since the store is read synchronously."""
        query = dict(request.query_params)
        is_saved = query.pop(SAVE, None) is not None
        scheme = "https" if self._rules.is_secure(request.scope) else "http"
        saved_from = f"{scheme}://{request.url.netloc}/" if is_saved else None
        html, status = self._viewing.whole(path, query, role_of(request.scope), saved_from=saved_from)
        answer = HTMLResponse(html, status, _SOON if status == _UNAVAILABLE else None)
        if is_saved:
            name = f"dkist-core-{path.strip('/') or 'now'}.html"
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        login.renew_session(answer, self._rules, request)
        return answer

    def _without_role(self, request: Request) -> Response:
        if self._rules.tokens and request.method == "GET" and not request.url.path.startswith(_OF_PROGRAMS):
            return RedirectResponse(login.login_address(request), _SEE_OTHER)
        expected = ["a token in the header Authorization, as `Bearer TOKEN`"] if self._rules.tokens else []
        if self._rules.user_header is not None:
            expected.append(f"a request of a trusted proxy with the header {self._rules.user_header}")
        sentence = f"found nothing that proves who requests this, expected {' or '.join(expected)}"
        return self._refusal(request, _UNAUTHORIZED, sentence, {"WWW-Authenticate": "Bearer"})

    def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = f"{request.method} {request.url.path}: {error.detail}"
        return self._refusal(request, error.status_code, sentence, error.headers)

    def _left(self, _: Request, __: Exception) -> Response:
        """Return an answer that is not sent, since the client has gone in the middle of its request."""
        return Response(status_code=_BAD_REQUEST)

    def _failed(self, request: Request, error: Exception) -> Response:
        log_internal_error_once(f"a request for {request.url.path} is not answered", error)
        return self._refusal(request, _INTERNAL, "an error of this package, which the log of the dashboard has")

    def _refusal(
        self, request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        if request.url.path.startswith(_OF_PROGRAMS):
            return ProblemResponse(status, sentence, headers)
        return HTMLResponse(self._viewing.refusal(request.url.path, status, sentence), status, headers)
