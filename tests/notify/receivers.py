"""
A webhook as a real server, whose answers a test chooses.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from dkist_processing_core.events.notice import NoticeIssued, decode_notice


class Request(NamedTuple):
    """
    One request, and the status with which it was answered.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """
        Its idempotency key.
        """
        return self.headers["Idempotency-Key"]

    @property
    def notice(self) -> NoticeIssued:
        """
        The notice, of a route in the form of CloudEvents.
        """
        return decode_notice(self.body)

    @property
    def text(self) -> str:
        """
        The text, of a route in the form of Slack.
        """
        return str(json.loads(self.body)["text"])


Answer = tuple[int, dict[str, str], bytes]
Answering = Callable[[], Answer]


class HttpReceiver:
    """
    A server that keeps its requests; `answer` is called for each, and may wait.
    """

    def __init__(self) -> None:
        """
        Accept everything.
        """
        self.requests: list[Request] = []
        self.answer: Answering = lambda: (200, {}, b"ok")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, content = receiver.answer()
                receiver.requests.append(Request(status, dict(self.headers), body))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # the client has ended before the answer, as after its time limit

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """
        Its address.
        """
        return f"http://127.0.0.1:{self._server.server_address[1]}/services/hidden-path"

    @property
    def accepted(self) -> list[Request]:
        """
        The requests that it has accepted.
        """
        return [request for request in self.requests if request.status == 200]

    def __enter__(self) -> Self:
        """
        Begin to serve.
        """
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        End the server.
        """
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
