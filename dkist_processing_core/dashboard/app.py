"""
The application of the dashboard: which path leads to which page, and the answers' headers.

Not here: the pages (pages), their rendering (rendering), and the server (server).
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dkist_processing_core.collect.questions import Questions
from dkist_processing_core.dashboard import rendering
from dkist_processing_core.dashboard.asked import Asked, Page, PageError, PageFunction
from dkist_processing_core.dashboard.links import address
from dkist_processing_core.dashboard.pages import now
from dkist_processing_core.dashboard.site import Site

PAGES: dict[str, PageFunction] = {"/": now.page}
"""The page of each path."""
_STATIC = Path(__file__).parent / "static"
OpenQuestions = Callable[[], AbstractContextManager[Questions]]


def application(site: Site, questions: OpenQuestions) -> Starlette:
    """Return the application; `questions` opens one state of the store."""
    routes: list[Any] = [
        Route(path, partial(_answer, path, page, site, questions), methods=["GET"]) for path, page in PAGES.items()
    ]
    routes.append(Mount("/static", StaticFiles(directory=_STATIC)))
    return Starlette(routes=routes)


def _answer(path: str, page: PageFunction, site: Site, questions: OpenQuestions, request: Request) -> Response:
    """Return a page as HTML. Starlette calls this in a thread, since the store is read synchronously."""
    query = dict(request.query_params)
    try:
        with questions() as opened:
            found = page(Asked(path, query, opened, datetime.now(UTC), None, site))
    except PageError as error:
        found = Page("Not shown", "error.html", {"message": str(error)}, error.status)
    return HTMLResponse(rendering.whole(found, _common(path, query, site)), found.status)


def _common(path: str, query: dict[str, str], site: Site) -> dict[str, object]:
    """Return the values that each page has."""
    here = address(path, **query)
    return {"site": site, "path_of_page": path, "live_address": address("/live", of=here), "static": _static_address}


@cache
def _static_address(name: str) -> str:
    """Return the address of a file that browsers may keep: it contains the digest of the file."""
    return f"/static/{name}?{hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:16]}"
