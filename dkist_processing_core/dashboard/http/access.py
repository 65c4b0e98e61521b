"""
Who requests something of the dashboard, and what they may do: by a token, a session of a browser, or a proxy's header.

Not here: the page to log in (login), and the checks that do not depend on a person (guards).
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
COOKIE = "dkist-core-session"
SESSION_SECONDS = 12 * 3600
_ROLE = "dkist_core_role"
_BEARER = "bearer "
_PARTS_OF_SESSION = 3


class Role(StrEnum):
    """What a viewer or a program may do."""

    READER = "reader"
    """Look at everything."""
    OPERATOR = "operator"
    """Also retry and discard dead letters."""


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may do what. Without tokens and without a header, all requests are those of operators."""

    tokens: Mapping[Role, str] = field(default_factory=dict, repr=False)
    """The token of each role that has one."""
    user_header: str | None = None
    """The header by which a reverse proxy names the user, who is an operator."""
    trusted_proxies: tuple[Network, ...] = ()
    """Where this header is trusted from."""
    is_read_only: bool = False
    """Whether operators may only look, too."""
    _form_key: str = field(default_factory=_random, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether everyone who reaches the dashboard may use it."""
        return not self.tokens and self.user_header is None

    @property
    def form_token(self) -> str:
        """What each form of an operator contains: pages of other sites cannot read it."""
        return _signature(self.tokens.get(Role.OPERATOR, self._form_key), "form")

    def is_form_token(self, text: str) -> bool:
        """Return True for the token of forms."""
        return _are_equal(text, self.form_token)

    def role_of_token(self, token: str) -> Role | None:
        """Return the role that a token gives; None if it is none of the tokens."""
        return next((role for role, known in self.tokens.items() if _are_equal(token, known)), None)

    def session(self, role: Role) -> str:
        """Return the text of a cookie that gives a role for some hours; the token is not in it."""
        text = f"{role}.{int(time.time()) + SESSION_SECONDS}"
        return f"{text}.{_signature(self.tokens[role], text)}"

    def role_of_session(self, cookie: str) -> Role | None:
        """Return the role that a cookie gives; None if it is too old, or none of ours."""
        parts = cookie.split(".")
        if len(parts) != _PARTS_OF_SESSION or parts[0] not in self.tokens or not parts[1].isdecimal():
            return None
        role, until, signature = Role(parts[0]), parts[1], parts[2]
        if not _are_equal(signature, _signature(self.tokens[role], f"{role}.{until}")):
            return None
        return role if int(until) > time.time() else None

    def trusts(self, host: str) -> bool:
        """Return True for the address of a reverse proxy whose headers count."""
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(found in network for network in self.trusted_proxies)

    def role(self, scope: Scope) -> Role | None:
        """Return the role of a request; None if it may do nothing."""
        found = Role.OPERATOR if self.is_open else self._proven_role(scope)
        return Role.READER if found is Role.OPERATOR and self.is_read_only else found

    def is_secure(self, scope: Scope) -> bool:
        """Return True if the client has requested this by https: from here, or from a trusted proxy."""
        forwarded = Headers(scope=scope).get("x-forwarded-proto") if self.trusts(_host_of(scope)) else None
        return (forwarded or scope["scheme"]) == "https"

    def _proven_role(self, scope: Scope) -> Role | None:
        request = Request(scope)
        given = request.headers.get("authorization", "")
        # A proxy may forward what it has checked itself, as of the scheme Basic.
        if given.lower().startswith(_BEARER):
            return self.role_of_token(given[len(_BEARER) :].strip())
        if self.user_header is not None and request.headers.get(self.user_header) and self.trusts(_host_of(scope)):
            return Role.OPERATOR
        return self.role_of_session(request.cookies.get(COOKIE, ""))


class Access:
    """Finds the role of each request; those without one are refused, except for public paths."""

    def __init__(
        self, app: ASGIApp, rules: Rules, is_public: Callable[[str], bool], refuse: Callable[[Request], Response]
    ) -> None:
        """Store the application, what needs no role, and what answers a request without a role."""
        self._app = app
        self._rules = rules
        self._is_public = is_public
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        role = self._rules.role(scope)
        scope.setdefault("state", {})[_ROLE] = role
        if role is None and not self._is_public(scope["path"]):
            await self._refuse(Request(scope))(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def role_if_any(scope: Scope) -> Role | None:
    """Return the role of a request; None if it has none, which only public paths allow."""
    found: Role | None = scope["state"][_ROLE]
    return found


def role_of(scope: Scope) -> Role:
    """Return the role of a request that was let in."""
    return Role(scope["state"][_ROLE])


def _host_of(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _signature(key: str, text: str) -> str:
    return hmac.new(key.encode(), f"dkist-core {text}".encode(), hashlib.sha256).hexdigest()


def _are_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())
