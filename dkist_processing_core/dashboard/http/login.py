"""
The page to log in by a token, after which a cookie replaces the token.

Not here: the cookie, and what a role may do (access).
"""

from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.http.access import COOKIE, SESSION_SECONDS, Role, Rules, role_if_any

PATH = "/login"
_SEE_OTHER, _BAD_REQUEST, _UNAUTHORIZED = 303, 400, 401
_MOST_FIELDS = 1000


class Login:
    """The routes to log in and to log out."""

    def __init__(self, rules: Rules, page: Callable[[str, str | None], str]) -> None:
        """Store the rules, and what renders the page for the address that follows it and an error."""
        self._rules = rules
        self._page = page
        self.routes = [
            Route(PATH, self._show, methods=["GET"]),
            Route(PATH, self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        after = _after(request)
        if role_if_any(request.scope) is not None:
            return RedirectResponse(after, _SEE_OTHER)
        answer = HTMLResponse(self._page(after, None))
        # A browser that follows a link of another site sends the cookie only with the next request.
        if request.headers.get("sec-fetch-site") == "cross-site":
            answer.headers["Refresh"] = "0"
        return answer

    async def _log_in(self, request: Request) -> Response:
        after = _after(request)
        role = self._rules.role_of_token((await form_of(request)).get("token", [""])[0].strip())
        if role is None:
            return HTMLResponse(self._page(after, "This is none of the tokens of the dashboard."), _UNAUTHORIZED)
        answer = RedirectResponse(after, _SEE_OTHER)
        _begin_session(answer, self._rules, role, request)
        return answer

    async def _log_out(self, _: Request) -> Response:
        answer = RedirectResponse(PATH, _SEE_OTHER)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def login_address(request: Request) -> str:
    """Return the address of the page to log in, which leads to what was requested."""
    return address(PATH, next=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path)


def renew_session(answer: Response, rules: Rules, request: Request) -> None:
    """Begin the session of a request anew, if it has one: it ends some hours after the last page was loaded."""
    role = rules.role_of_session(request.cookies.get(COOKIE, ""))
    if role is not None:
        _begin_session(answer, rules, role, request)


def _begin_session(answer: Response, rules: Rules, role: Role, request: Request) -> None:
    answer.set_cookie(
        COOKIE,
        rules.session(role),
        max_age=SESSION_SECONDS,
        secure=rules.is_secure(request.scope),
        httponly=True,
        samesite="strict",
    )


async def form_of(request: Request) -> dict[str, list[str]]:
    """
    Return the fields of a form, each with its values.

    Raises:
        HTTPException: The form has too many fields.
    """
    try:
        return parse_qs((await request.body()).decode(errors="replace"), max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        detail = f"found a form with too many fields, expected at most {_MOST_FIELDS}"
        raise HTTPException(_BAD_REQUEST, detail) from error


def _after(request: Request) -> str:
    """Return the address on this site that follows the login."""
    found = request.query_params.get("next", "/")
    # Browsers take // and /\ for the beginning of another site's address.
    is_ours = found.startswith("/") and not found.startswith(("//", "/\\")) and found.isprintable()
    return found if is_ours else "/"
