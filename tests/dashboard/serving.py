"""
Requests to a dashboard without a browser, and viewers that follow a page.

Not here: the dashboard in the process of the test (ground).
"""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.dashboard.ground import Served, dashboard
from tests.waiting import SECONDS

DROPPED = "dkist_core_viewer_dropped_total"
"""The metric of the clients that were given up since they did not read."""


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

    def __init__(self, served: Served) -> None:
        """Store the dashboard."""
        self.publish = served.publish
        self.host = urlsplit(served.address).hostname or ""
        self.port = urlsplit(served.address).port or 0

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

    def rest(self) -> list[tuple[str, str]]:
        """Return the further events, at the end of the stream."""
        return list(iter(self.next, None))

    def parts(self) -> dict[str, str]:
        """Return the parts of the next event, which must be one of parts."""
        found = self.next()
        assert found is not None
        name, data = found
        assert name == "parts"
        return dict(json.loads(data))


def measured(site: Site, name: str) -> float:
    """Return the value of a metric of the dashboard."""
    lines = site.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line))


@contextmanager
def running(**options: Any) -> Iterator[Site]:
    """Run a dashboard of the settings of the environment, on a free port."""
    with dashboard(**options) as served:
        yield Site(served)
