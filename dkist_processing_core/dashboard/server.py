"""
The HTTP server of the dashboard, in a thread of its process.

Not here: what it serves (app).
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from dkist_processing_core.errors import ConfigurationError


@contextmanager
def served(app: ASGIApp, host: str, port: int) -> Iterator[str]:
    """
    Serve an application during the block.

    Yields:
        The address to open, which ends with `/`.

    Raises:
        ConfigurationError: Nothing can be served there.
    """
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        msg = f"nothing can be served at {host}, port {port}: {error.strerror or error}; expected a free port"
        raise ConfigurationError(msg) from error
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
    thread = threading.Thread(target=server.run, args=([bound],), name="dkist-core-dashboard", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{bound.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
