"""
The small server of a long-running process: its health, and its metrics at `/metrics`.

Not here: what they are (consumer, collect, outbox), and the text of the metrics (exposition).
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.process.descriptors import OwnSockets
from dkist_processing_core.text import show
from dkist_processing_core.text.internal_errors import log_internal_error_once

if TYPE_CHECKING:
    from http.server import HTTPServer

    from dkist_processing_core.metrics.snapshot import Snapshot

METRICS_PATH = "/metrics"
HealthReport = Callable[[], tuple[bool, Mapping[str, object]]]
"""Returns whether all can be used, and the body of the answer."""
_LOOPBACK = "127.0.0.1"
_LARGEST_PORT = 65535
# How long a client may be silent, and how long a request waits for an earlier one.
_SILENT_SECONDS = 10.0


def address_of(text: str, what: str = "health") -> tuple[str, int]:
    """
    Return the host and the port in a text `PORT` or `HOST:PORT`; the host of a port alone is this one.

    Args:
        text: An address of IPv6 is in brackets, as in `[::1]:8080`.
        what: The name of the option, for the error.

    Raises:
        ValueError: The text is neither.
    """
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= _LARGEST_PORT
    if not is_port or (":" in host and not is_bracketed):
        msg = f"{what} is {show(text)}, expected PORT or HOST:PORT, for example '8080', '0.0.0.0:8080' or '[::1]:8080'"
        raise ValueError(msg)
    return (host[1:-1] if is_bracketed else host) or _LOOPBACK, int(port)


@contextmanager
def served(address: tuple[str, int], health: HealthReport, snapshot: "Snapshot | None" = None) -> Iterator[str]:
    """
    Answer each request with the health as JSON, with status 200 if it is good and otherwise with 503.

    Args:
        address: Host and port.
        health: Returns whether it is good, and the facts.
        snapshot: The metrics, which are served at `/metrics`; without it the health is served there as well.

    Yields:
        The address to ask, which ends with `/`.

    Raises:
        ConfigurationError: Nothing can be served there.
    """
    # Imported here: commands that only read events import this package too, and start sooner without a server.
    from http import HTTPStatus  # noqa: PLC0415
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415
    from socketserver import TCPServer  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENT_SECONDS

        def do_GET(self) -> None:
            if snapshot is not None and self.path.partition("?")[0] == METRICS_PATH:
                found = snapshot.rendered(self.headers.get("Accept", ""), patience=_SILENT_SECONDS)
                if found is None:
                    self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"an earlier request is not answered yet\n")
                else:
                    self._answer(HTTPStatus.OK, *found)
                return
            is_good, facts = health()
            status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, json.dumps(facts).encode() + b"\n", "application/json")

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a service manager asks every few seconds."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            # The library's own method asks the name service for the name of this host.
            TCPServer.server_bind(self)

        def handle_error(self, *_: object) -> None:
            error = sys.exception()
            # A client that goes away is no error of this process.
            if isinstance(error, Exception) and not isinstance(error, OSError):
                log_internal_error_once("a request to the server of health and metrics is not answered", error)

    if snapshot is not None:
        snapshot.prepare()
    server = _bound(Server, address, Handler)
    sockets = OwnSockets([server.fileno()])
    thread = threading.Thread(target=server.serve_forever, name="dkist-core-server", daemon=True)
    thread.start()
    try:
        yield f"http://{_shown(address[0], server.server_address[1])}/"
    finally:
        server.shutdown()
        del sockets
        server.server_close()
        thread.join()


def _bound(server_class: "type[HTTPServer]", address: tuple[str, int], handler: Any) -> "HTTPServer":
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server_class.address_family = found[0]
        return server_class((str(found[4][0]), address[1]), handler)
    except OSError as error:
        msg = (
            f"nothing can be served at {_shown(*address)}: {error.strerror or error}; expected a free port of this host"
        )
        raise ConfigurationError(msg) from error


def _shown(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
