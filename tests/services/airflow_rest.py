"""
A server that answers as Airflow's REST API does, as far as reconciliation asks it, and that can be made to misbehave.

Not here: a real Airflow (tests.services.airflow).
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.services.sockets import LOOPBACK

USER, PASSWORD = "watcher", "correct horse"
Reply = tuple[int, Any]
"""A status, and a body: bytes as they are, everything else as JSON."""


@dataclass
class FakeAirflow:
    """
    What the server knows, and what it has been asked.
    """

    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    tasks: dict[tuple[str, str], dict[str, str | None]] = field(default_factory=dict)
    page: int = 100
    """The largest number of entries in one answer, as ``[api] maximum_page_limit``."""
    admits_all: bool = False
    """Whether a token needs no login, as with ``[core] simple_auth_manager_all_admins``."""
    tokens: set[str] = field(default_factory=set)
    misbehaves: Callable[[str, str], Reply | None] = lambda *_: None
    """Returns another answer to a request, by its method and path; None for the usual one."""
    asked: list[str] = field(default_factory=list)
    clock_ahead: timedelta = timedelta()
    """By how much its clock is ahead."""
    port: int = 0

    @property
    def url(self) -> str:
        """
        The address.
        """
        return f"http://{LOOPBACK}:{self.port}"

    def add(
        self,
        dag_id: str,
        run_id: str,
        state: str,
        *,
        began: datetime | None = None,
        over: datetime | None = None,
        **tasks: str | None,
    ) -> None:
        """
        Add or change a run with its tasks.
        """
        self.runs[dag_id, run_id] = {
            "dag_id": dag_id,
            "dag_run_id": run_id,
            "state": state,
            "start_date": began.isoformat() if began else None,
            "end_date": over.isoformat() if over else None,
            "conf": {},
        }
        self.tasks[dag_id, run_id] = tasks

    def delete(self, dag_id: str, run_id: str | None = None) -> None:
        """
        Delete a run, or a DAG with all its runs.
        """
        for key in [key for key in self.runs if key[0] == dag_id and run_id in (None, key[1])]:
            del self.runs[key], self.tasks[key]

    def answer(self, method: str, target: str, token: str | None, body: bytes) -> Reply:
        """
        Return the answer to a request.
        """
        self.asked.append(f"{method} {target}")
        parts = urlsplit(target)
        other = self.misbehaves(method, parts.path)
        if other is not None:
            return other
        if parts.path == "/auth/token":
            return self._new_token(method, body)
        if token not in self.tokens:
            return 401, {"detail": "Invalid JWT token"}
        # As in Airflow's server, an escaped slash separates like any other.
        return self._known(unquote(parts.path), parse_qs(parts.query))

    def _known(self, path: str, query: dict[str, list[str]]) -> Reply:
        if path == "/api/v2/dags/~/dagRuns":
            found = [run for run in self.runs.values() if run["state"] in query["state"]]
            return 200, self._part("dag_runs", found, query)
        if matched := re.fullmatch(r"/api/v2/dags/([^/]+)/dagRuns/([^/]+)(/taskInstances)?", path):
            return self._about_run((matched[1], matched[2]), query if matched[3] else None)
        return 404, {"detail": "Not Found"}

    def _about_run(self, key: tuple[str, str], query: dict[str, list[str]] | None) -> Reply:
        if key not in self.runs:
            return 404, {"detail": f"The DagRun with dag_id: `{key[0]}` and run_id: `{key[1]}` was not found"}
        if query is None:
            return 200, self.runs[key]
        instances = [{"task_id": name, "map_index": -1, "state": state} for name, state in self.tasks[key].items()]
        return 200, self._part("task_instances", instances, query)

    def _new_token(self, method: str, body: bytes) -> Reply:
        if method == "POST":
            given = json.loads(body)
            if (given["username"], given["password"]) != (USER, PASSWORD):
                return 401, {"detail": "Invalid credentials"}
        elif not self.admits_all:
            return 403, {"detail": "This method is only allowed if all are admins"}
        token = f"secret-token-{len(self.asked)}"
        self.tokens.add(token)
        return 201, {"access_token": token}

    def _part(self, name: str, entries: list[Any], query: dict[str, list[str]]) -> dict[str, Any]:
        first, limit = int(query["offset"][0]), min(self.page, int(query["limit"][0]))
        return {name: entries[first : first + limit], "total_entries": len(entries)}


@contextmanager
def fake_airflow(**facts: Any) -> Iterator[FakeAirflow]:
    """
    Serve a fake Airflow on loopback during the block.
    """
    fake = FakeAirflow(**facts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = fake.answer(self.command, self.path, token if scheme == "Bearer" else None, body)
            sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(answer, bytes) else "application/json")
            if status in (302, 307):
                self.send_header("Location", "/login?next=secret")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_GET  # noqa: N815 - a name of http.server

        def date_time_string(self, timestamp: float | None = None) -> str:
            """
            Return the time of an answer.
            """
            return super().date_time_string((timestamp or time.time()) + fake.clock_ahead.total_seconds())

        def log_message(self, *_: object) -> None:
            """
            Log nothing.
            """

    with ThreadingHTTPServer((LOOPBACK, fake.port), Handler) as server:
        server.daemon_threads = True
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
