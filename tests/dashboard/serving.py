"""
A dashboard that serves during a block, requests to it, and viewers that follow a page.
"""

import http.client
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.service import Dashboard
from tests.waiting import SECONDS


class Answer:
    """An answer over HTTP."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        """Read the whole answer."""
        self.status = found.status
        self.headers = found.headers
        self.body = found.read()

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON values."""
        return json.loads(self.body)


class Site:
    """The address of a dashboard, and requests to it."""

    def __init__(self, address: str) -> None:
        """Store the address, which ends with `/`."""
        self.address = address
        self.host = urlsplit(address).hostname or ""
        self.port = urlsplit(address).port or 0

    def connection(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Return the answer to a request, which follows no redirection."""
        with closing(self.connection()) as connection:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())

    def get(self, path: str, headers: dict[str, str] | None = None, **query: object) -> Answer:
        """Return the answer to a request for a path with the parameters of its address."""
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)

    @contextmanager
    def viewer(self, of: str, headers: dict[str, str] | None = None) -> Iterator["Viewer"]:
        """Follow a page during the block."""
        with closing(self.connection()) as connection:
            connection.request("GET", "/live?" + urlencode({"of": of}), headers=headers or {})
            yield Viewer(connection.getresponse())


class Viewer:
    """Reads the events of a live page."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        """Store the answer, whose events follow."""
        self.status = found.status
        self._found = found

    def next(self) -> tuple[str, str] | None:
        """Return the name and the data of the next event; None at the end of the stream."""
        name, data = "", []
        for line in self._found:
            field, _, value = line.decode().rstrip("\r\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not field and name:
                return name, "\n".join(data)
        return None

    def parts(self) -> dict[str, str]:
        """Return the parts of the next event, which must be one of parts."""
        found = self.next()
        assert found is not None
        name, data = found
        assert name == "parts"
        return dict(json.loads(data))


@contextmanager
def running(**options: Any) -> Iterator[Site]:
    """Run a dashboard of the settings of the environment, on a free port."""
    dashboard = Dashboard(DKISTProcessingCoreConfiguration.read(), port=0, **options)
    said: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            dashboard.run(said.put)
        except BaseException as error:
            said.put(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found = said.get(timeout=SECONDS)
        if isinstance(found, BaseException):
            raise found
        yield Site(found)
    finally:
        dashboard.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
