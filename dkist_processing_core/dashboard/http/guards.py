"""
The checks of each request, and the headers of each answer, that do not depend on a person.

Not here: who may do what (access), and the limits of a connection (connection).
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 * 1024
"""The largest body of a request, in bytes."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer`, browsers would hide the origin of our own forms as well.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_CHANGE_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


class SafeHeaders:
    """Adds the headers of safety to each answer; an answer is not kept unless it allows that."""

    def __init__(self, app: ASGIApp) -> None:
        """Store the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class SameSite:
    """Refuses requests for a change that a browser sends for a page of another site."""

    def __init__(self, app: ASGIApp) -> None:
        """Store the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] in _CHANGE_NOTHING or _is_ours(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        text = "found a request of another site, expected one of a page of this dashboard\n"
        await PlainTextResponse(text, 403)(scope, receive, send)


def _is_ours(headers: Headers) -> bool:
    """Return True for a request of our own pages, or of a program: a browser names the origin of each change."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or urlsplit(origin).netloc == headers.get("host")
