"""
Who requests something of the dashboard, and what they may do.

Not here: the checks of requests that do not depend on a person (guards).
"""

from enum import StrEnum

from starlette.types import ASGIApp, Receive, Scope, Send

_ROLE = "dkist_core_role"


class Role(StrEnum):
    """What a viewer or a program may do."""

    READER = "reader"
    """Look at everything."""
    OPERATOR = "operator"
    """Also retry and discard dead letters."""


class Access:
    """Finds the role of each request; requests without one are refused."""

    def __init__(self, app: ASGIApp) -> None:
        """Store the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in."""
        scope.setdefault("state", {})[_ROLE] = Role.OPERATOR
        await self._app(scope, receive, send)


def role_of(scope: Scope) -> Role:
    """Return the role of a request that was let in."""
    return Role(scope["state"][_ROLE])
