"""
The HTTP server of the dashboard, in a thread of its process.

Not here: what it serves (dashboard.app), and the limits of one connection (connection).
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn
from starlette.types import ASGIApp

from dkist_processing_core.dashboard.http.connection import Connection
from dkist_processing_core.dashboard.http.measures import Measures
from dkist_processing_core.errors import ConfigurationError, DKISTProcessingCoreError

if TYPE_CHECKING:
    import asyncio

# Names of events may have thousands of characters, and are in addresses.
_HEADER_BYTES = 64 * 1024
MOST_CONNECTIONS = 800
"""From so many connections on, requests are refused by a status; far more connections are closed (connection)."""
_ENDING_SECONDS = 2
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - they are recognized


@contextmanager
def served(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    measures: Measures,
    before_end: Callable[[], None],
    failed: Callable[[], None],
) -> Iterator[str]:
    """
    Serve an application during the block.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 for a free one.
        measures: Times the answers, and counts who does not read them.
        before_end: Ends the answers that would not end; it is called in the thread of the server.
        failed: Ends the block, since the server has ended by an error; it is called in the same thread.

    Yields:
        The address to open, which ends with `/`.

    Raises:
        ConfigurationError: Nothing can be served there.
        DKISTProcessingCoreError: The server has ended by an error.
    """
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        msg = f"nothing can be served at {shown}:{port}: {error.strerror or error}; expected a free port of this host"
        raise ConfigurationError(msg) from error
    config = uvicorn.Config(
        measures.timed(app),
        # Uvicorn calls it with the arguments of a protocol.
        http=cast("type[asyncio.Protocol]", partial(Connection, dropped=measures.drop)),
        ws="none",
        lifespan="off",
        # The application logs its errors.
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        # The address of a proxy is needed to trust its headers.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=_ENDING_SECONDS,
    )
    server = _Server(config, before_end)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            server.run([bound])
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread of the block
            errors.append(error)
            failed()

    thread = threading.Thread(target=run, name="dkist-core-dashboard", daemon=True)
    thread.start()
    try:
        # An address that stands for all addresses of this host is none to open.
        name = socket.gethostname() if host in _ALL_ADDRESSES else shown
        yield f"http://{name}:{bound.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        # A server that has failed leaves it open.
        bound.close()
    if errors:
        msg = f"the server of the dashboard has ended by an error: {errors[0]!r}"
        raise DKISTProcessingCoreError(msg) from errors[0]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, before_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_end = before_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the answers first that would not end."""
        self._before_end()
        await super().shutdown(sockets)
