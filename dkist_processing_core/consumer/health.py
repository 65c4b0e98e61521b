"""
The health of a consumer over HTTP, for service managers that ask whether it works.

Not here: what it is (service), and the numbers of its rows (inbox).
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.process.descriptors import OwnSockets
from dkist_processing_core.text import show

_LOOPBACK = "127.0.0.1"
_LARGEST_PORT = 65535
logger = logging.getLogger("dkist_processing_core.consumer")


def address_of(health: str) -> tuple[str, int]:
    """
    Return the host and the port in a text `PORT` or `HOST:PORT`; the host of a port alone is this one.

    Raises:
        ValueError: The text is neither.
    """
    host, _, port = health.rpartition(":") if isinstance(health, str) else ("", "", "")
    if not port.isascii() or not port.isdigit() or int(port) > _LARGEST_PORT:
        msg = f"health is {show(health)}, expected PORT or HOST:PORT, for example '8080' or '0.0.0.0:8080'"
        raise ValueError(msg)
    return host or _LOOPBACK, int(port)


@contextmanager
def health_served(address: tuple[str, int], report: Callable[[], tuple[bool, Mapping[str, object]]]) -> Iterator[None]:
    """
    Answer each request with the report as JSON: with status 200 if it is good, otherwise with 503.

    Raises:
        ConfigurationError: Nothing can be served there.
    """
    # Imported here: commands that only read events import this package too, and start sooner without a server.
    from http import HTTPStatus  # noqa: PLC0415
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_good, facts = report()
            body = json.dumps(facts).encode() + b"\n"
            self.send_response(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a service manager asks every few seconds."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        msg = f"health cannot be served at {address[0]}:{address[1]}: {error.strerror or error}"
        raise ConfigurationError(msg) from error
    server.daemon_threads = True
    sockets = OwnSockets([server.fileno()])
    thread = threading.Thread(target=server.serve_forever, name="dkist-core-health", daemon=True)
    thread.start()
    logger.info("the health of the consumer is at http://%s:%d/", *server.server_address[:2])
    try:
        yield
    finally:
        server.shutdown()
        del sockets
        server.server_close()
        thread.join()
