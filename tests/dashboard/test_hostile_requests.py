"""
Requests that no browser sends for a page of the dashboard: each is refused, and the dashboard goes on.
"""

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from dkist_processing_core.dashboard import app
from dkist_processing_core.dashboard.api.endpoints import ENDPOINTS
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.html import live
from dkist_processing_core.dashboard.http import connection, guards, server
from dkist_processing_core.dashboard.service import Dashboard
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.settings.reading import read_settings
from tests.dashboard.serving import DROPPED, Site, measured, running
from tests.waiting import SECONDS, wait_until

HOST = b"Host: localhost\r\n"
EVIL = "https://evil.example"
SECRET_FILE = "from starlette"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A dashboard on loopback, which needs no token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKIST_CORE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with running() as site:
            yield site


@pytest.fixture(autouse=True)
def _no_error_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if a request leads to an internal error, or if the dashboard does not answer the next one."""
    yield
    assert site.get("/health/live").status == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def raw(site: Site, *parts: bytes) -> bytes:
    """Return all that the dashboard answers to some bytes, until it closes the connection."""
    with socket.create_connection((site.host, site.port), SECONDS) as client:
        # It may be closed before everything is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                client.sendall(part)
        found = b""
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                found += part
        return found


def status(answer: bytes) -> int:
    """Return the status of the first answer in some bytes; 0 without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\rb\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\x00b\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X A: b\r\nConnection: close\r\n\r\n",
        b"POST /bus/letters HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /bus/letters HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
        b"POST /bus/letters HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=range(12),
)
def test_a_malformed_request_is_refused(head: bytes, site: Site) -> None:
    """The status is 400 or 501, or the connection ends; nothing of the request is in a header of the answer."""
    answer = raw(site, head)

    assert status(answer) in {0, 400, 501}
    assert b"evil" not in answer


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_another_name_of_the_host_is_refused(host: str, site: Site) -> None:
    """A page of another site whose name leads to this host cannot read anything."""
    assert site.get("/", {"Host": host}).status == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8088", "LOCALHOST"])
def test_the_names_of_this_host_are_accepted(host: str, site: Site) -> None:
    """The port may be that of a tunnel."""
    assert site.get("/", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/..%5capp.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.py%00.css",
        "/static/" + "a" * 5000,
        "/static/",
        "/static",
        "/../app.py",
        "/%2e%2e/app.py",
    ],
)
def test_no_other_file_is_served(path: str, site: Site) -> None:
    """A path that leads out of the folder is not found."""
    answer = site.get(path)

    assert answer.status in {404, 307}
    assert SECRET_FILE not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.localhost"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("path", ["/bus/letters", "/api/v1/dead-letters/discard", "/login", "/logout"])
def test_a_change_by_a_page_of_another_site_is_refused(path: str, headers: dict[str, str], site: Site) -> None:
    """Neither is the form of the page requested, nor is anything changed."""
    answer = site.request("POST", path, "action=discard&name=g1", headers)

    assert answer.status == 403


def test_a_form_without_its_token_changes_nothing(site: Site) -> None:
    """A program without a browser cannot use the form; it has the API."""
    answers = [
        site.request("POST", "/bus/letters", f"action=discard&name=g1&form_token={token}") for token in ("", "x" * 64)
    ]

    assert [answer.status for answer in answers] == [403, 403]


@pytest.mark.parametrize("path", ["/login", "/bus/letters"])
def test_a_form_with_too_many_fields_is_refused(path: str, site: Site) -> None:
    """By a sentence."""
    answer = site.request("POST", path, "a=b&" * 2000)

    assert answer.status == 400
    assert "too many fields" in answer.text


@pytest.mark.parametrize("path", ["/", "/login", "/bus/letters", "/api/v1/dead-letters/retry"])
def test_a_large_body_is_refused(path: str, site: Site) -> None:
    """By its announced length at once, and otherwise by its size; it is not kept in memory."""
    post = f"POST {path} HTTP/1.1\r\n".encode() + HOST + b"Content-Type: application/json\r\n"
    announced = raw(site, post + b"Content-Length: 10000000000\r\nConnection: close\r\n\r\nx=")
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    streamed = raw(site, post + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", *[chunk] * 100)

    assert status(announced) in {405, 413}
    assert status(streamed) in {0, 405, 413}


@pytest.mark.parametrize(
    "query",
    [
        "workflow=a%00&id=b&name=%00&task=%00",
        "workflow=%ff&id=%ed%a0%80&name=%ff&version=%e2%80%ae&task=%c3&attempt=%d9%a7&family=%ff",
        "workflow=<script>&id='%22&name=%25&a=%5c&b=%2e%2e&task=*&attempt=-1&q=%25_*",
        "at=%ff",
        "at=%00",
        "at=" + "9" * 9000,
        "group=%00",
        "q=%00",
        "first=" + "9" * 5000,
        "sort=%0d%0ax",
        "&&==&a=&=b",
    ],
)
@pytest.mark.parametrize("path", [*app.PAGES, "/live", "/login", *(each.path for each in ENDPOINTS)])
def test_a_strange_query_is_no_internal_error(path: str, query: str, site: Site) -> None:
    """The answer is a page, or an explanation."""
    if path == "/live":
        with site.viewer(f"/?{query}") as viewer:
            assert viewer.next() is not None
    else:
        assert site.get(f"{path}?{query}").status in {200, 303, 400, 404}


def test_an_address_cannot_add_a_header(site: Site) -> None:
    """Line breaks in a parameter stay in the parameter."""
    answer = site.get("/login?next=/%0d%0aSet-Cookie:%20a=b")

    assert answer.headers["Set-Cookie"] is None
    assert "\n" not in (answer.headers["Location"] or "")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND"])
def test_other_methods_are_refused(method: str, site: Site) -> None:
    """No answer allows another site anything."""
    answer = site.request(method, "/", headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"})

    assert answer.status in {403, 405}
    assert answer.headers["Access-Control-Allow-Origin"] is None


def test_each_answer_has_the_headers_of_safety(site: Site) -> None:
    """Pages, files, errors and refusals; only files may be kept by a browser."""
    file = next(part for part in site.get("/").text.split('"') if part.startswith("/static/style.css?"))
    evil = {"Host": "evil.example"}
    answers = [site.get(path) for path in ("/", "/nothing", "/api/v1/now", file)] + [site.get("/", evil)]

    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Server"] is None
    assert [answer.headers["Cache-Control"] for answer in answers] == [
        *["no-store"] * 3,
        "public, max-age=31536000, immutable",
        "no-store",
    ]


def test_a_request_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    """Neither a client that is silent nor one that sends a byte from time to time holds a connection."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.3)
    silent = raw(site)
    begun = raw(site, b"GET / HTTP/1.1\r\n" + HOST)
    body = raw(site, b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\ntoken=")

    assert (silent, begun, body) == (b"", b"", b"")


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    """What it has not read is not kept."""
    monkeypatch.setattr(connection, "READING_SECONDS", 0.3)
    request = b"GET /static/style.css HTTP/1.1\r\n" + HOST + b"\r\n"
    with (
        socket.create_connection((site.host, site.port), SECONDS) as client,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        send_forever(client, request * 100)


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read_a_short_answer_is_given_up(
    header: bytes, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    """Its connection does not wait for ever for what is left of the answer, whether it is kept or to be closed."""
    monkeypatch.setattr(connection, "READING_SECONDS", 0.3)
    monkeypatch.setattr(connection, "_SEND_BUFFER_BYTES", 4096)
    request = b"GET /static/style.css HTTP/1.1\r\n" + HOST
    size = len(site.get("/static/style.css").body)
    before = measured(site, DROPPED)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((site.host, site.port))
        client.sendall((request + b"\r\n") * 3 + request + header + b"\r\n")
        wait_until(lambda: measured(site, DROPPED) == before + 1)

    assert 4 * size < HIGH_WATER_LIMIT


def test_a_client_that_reads_slowly_is_given_up_only_without_progress() -> None:
    """As long as less is left at each look, the connection stays."""
    left = iter((100, 90, 80, 80, 70))

    class Watched(asyncio.Transport):
        ended: asyncio.Future[None]

        def abort(self) -> None:
            self.ended.set_result(None)

    async def watch() -> None:
        transport = Watched()
        transport.ended = asyncio.get_running_loop().create_future()
        connection.Limit(0.01, transport.abort, lambda: next(left)).begin()
        await asyncio.wait_for(transport.ended, SECONDS)

    asyncio.run(watch())

    assert list(left) == [70]


def test_what_a_client_has_not_received_is_counted() -> None:
    """Also what waits in the kernel, which takes it over in large parts."""

    async def count() -> tuple[int, int]:
        here, there = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        before = connection.unread_bytes(transport)
        transport.write(b"x" * 1_000_000)
        written = connection.unread_bytes(transport)
        transport.abort()
        there.close()
        return before, written

    before, written = asyncio.run(count())

    assert before == 0
    assert written >= 1_000_000


def test_the_health_is_answered_while_all_pages_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that watches over the process does not end it since a store is slow."""
    is_over = threading.Event()

    def page(_: Asked) -> NoReturn:
        is_over.wait(SECONDS)
        raise PageError("it was slow")

    monkeypatch.setitem(app.PAGES, "/runs", page)
    with running() as site, ExitStack() as stack:
        stack.callback(is_over.set)
        for _ in range(45):
            client = stack.enter_context(socket.create_connection((site.host, site.port), SECONDS))
            client.sendall(b"GET /runs HTTP/1.1\r\n" + HOST + b"\r\n")
        answer = site.get("/health/live")
        was_slow = not is_over.is_set()

    assert (answer.status, was_slow) == (200, True)


def test_only_few_requests_about_the_past_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further one is asked to come again; pages about the present are not concerned."""
    is_over, begun = threading.Event(), threading.Semaphore(0)

    def page(_: Asked) -> NoReturn:
        begun.release()
        is_over.wait(SECONDS)
        raise PageError("it was slow")

    monkeypatch.setitem(app.PAGES, "/runs", page)
    with running() as site, ExitStack() as stack:
        stack.callback(is_over.set)
        for _ in range(2):
            client = stack.enter_context(socket.create_connection((site.host, site.port), SECONDS))
            client.sendall(b"GET /runs?at=2026-11-29T12:00:00Z HTTP/1.1\r\n" + HOST + b"\r\n")
            assert begun.acquire(timeout=SECONDS)
        refused = site.get("/", at="2026-11-29T12:00:00Z")
        of_program = site.get("/api/v1/compare", workflow="w", a="a", b="b")
        present = site.get("/")

    assert (refused.status, refused.headers["Refresh"]) == (503, "5")
    assert "other requests about the past" in refused.text
    assert (of_program.status, of_program.headers["Retry-After"]) == (503, "5")
    assert present.status == 200


def test_a_server_that_fails_ends_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go on without pages, and the error is that of the command."""

    async def fail(_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(uvicorn.Server, "main_loop", fail)
    with pytest.raises(DKISTProcessingCoreError, match="ended by an error: OSError\\('too many open files'\\)"):
        Dashboard(read_settings(), port=0).run(lambda _: None)


def send_forever(client: socket.socket, part: bytes) -> NoReturn:
    """Send the same again and again, and read nothing."""
    while True:
        client.sendall(part)


def test_the_documented_limits_are_those_of_the_server() -> None:
    """Of connections, viewers and requests."""
    page = (Path(__file__).parents[2] / "docs/how-to/dashboard.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", page.partition("| limit | |")[2], re.MULTILINE))
    stated = {limit: [int(number) for number in re.findall(r"\d+", text)] for limit, text in rows.items()}

    assert stated["connections"] == [server.MOST_CONNECTIONS, 503, connection.MOST_OPEN]
    assert stated["viewers of live pages"] == [live.MOST_VIEWERS, 503]
    assert stated["a request"] == [guards.LARGEST_BODY // 1024, connection.REQUEST_SECONDS]
    # A look each time that long finds whether the client has received anything since the last one.
    least = connection.READING_SECONDS
    assert stated["an answer of which the client receives nothing more"] == [least, 2 * least]


def test_there_is_room_for_so_many_connections_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones get a status that means this."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    with running() as site, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection((site.host, site.port), SECONDS))
        refused = site.get("/")

    assert refused.status == 503


def test_far_more_connections_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take the files that the process may open; there is room again when others end."""
    with running() as site:
        monkeypatch.setattr(connection, "MOST_OPEN", 2)
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(socket.create_connection((site.host, site.port), SECONDS))
            closed = raw(site, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_until(lambda: raw(site, b"GET /health/live HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n") != b"")

    assert closed == b""
