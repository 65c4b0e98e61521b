"""
The files that pages load, which browsers keep as long as the address has the digest of the file.

Not here: the addresses (viewing).
"""

from starlette.responses import Response
from starlette.staticfiles import StaticFiles as Files
from starlette.types import Scope

from dkist_processing_core.dashboard.html.viewing import STATIC, digest_of


class StaticFiles(Files):
    """The files of the folder `static`."""

    def __init__(self) -> None:
        """Store the folder."""
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        found = await super().get_response(path, scope)
        is_named_by_digest = scope["query_string"].decode("latin-1") == digest_of(path)
        found.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named_by_digest else "no-cache"
        return found
