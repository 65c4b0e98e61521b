"""
The state that a dashboard serves is the fold of all events, however often it was stopped, started late, or rebuilt.
"""

import random
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.api.answers import Run
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, TaskSampled
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.as_json import run_json
from tests.dashboard.serving import Site, running
from tests.stored import ended_run, running_run
from tests.waiting import wait_until

IDS = [f"scheduled__2026-11-22T{hour:02}:00:00+00:00" for hour in range(8, 12)]
INSTANTS = 200


def history() -> list[Event]:
    """Return the reports on several runs, in an order in which they may arrive."""
    found = [*(event for run_id in IDS for event in ended_run(run_id)), *running_run()]
    random.Random(19).shuffle(found)
    return found


def publish(events: Iterable[Event]) -> None:
    """Put events on the bus, whether a dashboard runs or not."""
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)
        assert publisher.flush(30)


def fold(events: Sequence[Event]) -> bytes:
    """Return the runs that follow from events, as the API answers about each."""
    runs: dict[tuple[str, str, str], list[Event]] = {}
    for event in events:
        runs.setdefault((event.workflow_name, event.workflow_version, event.run_id), []).append(event)
    return b"\n".join(answer_about(runs[name]) for name in sorted(runs))


def answer_about(events: Sequence[Event]) -> bytes:
    """Return the answer about the run that follows from the events on it."""
    return msgspec.json.encode(msgspec.convert(run_json(run_view(kept_reports(events))), Run))


def served(site: Site) -> bytes:
    """Return the answers of a dashboard about all runs that it knows."""
    listed = site.get("/api/v1/runs", limit=1000).json["runs"]
    names = sorted((each["workflowName"], each["workflowVersion"], each["dagRunId"]) for each in listed)
    answers = [site.get("/api/v1/run", workflow=name, version=version, id=run_id) for name, version, run_id in names]
    return b"\n".join(answer.body for answer in answers)


def comes_to_serve(site: Site, expected: bytes) -> bytes:
    """Wait until a dashboard serves a state, and return what it serves."""
    wait_until(lambda: served(site) == expected, every=0.2)
    return served(site)


def test_a_restart_in_the_middle_of_runs_loses_nothing() -> None:
    """Events that come while no dashboard runs are in the state afterwards."""
    events = history()
    with running() as site:
        site.publish(*events[:30])
        first = served(site)
    publish(events[30:60])
    with running() as site:
        publish(events[60:])
        last = comes_to_serve(site, fold(events))

    assert first == fold(events[:30])
    assert last == fold(events)


def test_a_dashboard_that_is_started_late_has_everything() -> None:
    """All events were published before there was a store."""
    events = history()
    publish(events)
    with running() as site:
        found = comes_to_serve(site, fold(events))

    assert found == fold(events)


def test_a_store_that_was_deleted_is_built_again(state_dir: Path) -> None:
    """It is made of the events that the bus has kept, and is equal byte for byte."""
    events = history()
    with running() as site:
        site.publish(*events)
        before = served(site)
    for file in state_dir.rglob("inbox.db*"):
        file.unlink()
    with running() as site:
        after = comes_to_serve(site, before)

    assert before == after == fold(events)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_dashboards_on_one_store_serve_the_same_state(
    database: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Whichever of them takes in an event, both show it, also to those who follow a page."""
    events = history()
    if database == "postgresql":
        postgres = request.getfixturevalue("postgres")
        postgres.create_database("two_dashboards")
        monkeypatch.setenv("DKIST_CORE_INBOX", postgres.url("two_dashboards", driver="psycopg"))
    with running() as one, running() as other, one.viewer("/") as of_one, other.viewer("/") as of_other:
        at_first = [viewer.parts() for viewer in (of_one, of_other)]
        publish(events)
        found = [comes_to_serve(site, fold(events)) for site in (one, other)]
        then = [viewer.parts() for viewer in (of_one, of_other)]

    assert found == [fold(events)] * 2
    assert all(at_first)
    assert all(then)


def test_the_state_of_any_instant_is_the_fold_until_then() -> None:
    """Reports of which the own time is later, and samples, are left out."""
    events = list(ended_run(IDS[0]))
    first, last = min(event.time for event in events), max(event.time for event in events)
    choose = random.Random(200)
    instants = sorted(first + (last - first) * choose.random() for _ in range(INSTANTS))
    name: dict[str, Any] = {"workflow": events[0].workflow_name, "version": events[0].workflow_version, "id": IDS[0]}
    with running() as site:
        site.publish(*events)
        before = site.get("/api/v1/run", **name, at=(first - timedelta(seconds=1)).isoformat())
        found = [site.get("/api/v1/run?" + urlencode({**name, "at": each.isoformat()})).body for each in instants]

    expected = [
        answer_about([event for event in events if event.time <= each and not isinstance(event, TaskSampled)])
        for each in instants
    ]
    assert before.status == 404
    assert len(set(found)) > 10
    assert found == expected


def test_pages_are_served_while_the_store_is_waited_for(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """They explain it, and are requested again by the browser; the process lives, and is not ready."""
    monkeypatch.setenv("DKIST_CORE_INBOX", f"postgresql://core:hidden-word@127.0.0.1:{refusing_port}/store")
    with running(is_awaited=False) as site:
        page, ready, live, metrics = (site.get(path) for path in ("/", "/health/ready", "/health/live", "/metrics"))
        with site.viewer("/") as viewer:
            event = viewer.next()

    assert (page.status, ready.status, live.status, metrics.status) == (503, 503, 200, 503)
    assert page.headers["Refresh"] == "5"
    assert "the store is not open yet" in page.text
    assert ready.json["store"] == "unavailable"
    assert event is not None
    assert event[0] == "away"
    assert "hidden-word" not in page.text + ready.text + metrics.text + event[1]


@pytest.mark.usefixtures("owned")
def test_pages_are_served_from_the_store_while_the_bus_is_away(
    monkeypatch: pytest.MonkeyPatch, refusing_port: int
) -> None:
    """They have what was stored before, and say until when that is complete, or that it may not be."""
    events = list(ended_run(IDS[0]))
    with running() as site:
        site.publish(*events)
        ready = site.get("/health/ready")
    address = f'{{"interservice-bus": {{"mesh_address": "127.0.0.1", "mesh_port": {refusing_port}}}}}'
    monkeypatch.setenv("MESH_CONFIG", address)
    with running(is_awaited=False) as site:
        wait_until(lambda: site.get("/health/ready").json == {"bus": "unavailable", "store": "ok"})
        page, away = site.get("/"), site.get("/health/ready")
        found = served(site)

    assert (ready.status, ready.json) == (200, {"bus": "ok", "store": "ok"})
    assert away.status == 503
    assert page.status == 200
    assert "The bus cannot be reached now" in page.text
    assert found == fold(events)


def test_the_metrics_are_those_of_collect() -> None:
    """Prometheus reads them at the address of the pages."""
    with running() as site:
        site.publish(*ended_run(IDS[0]))
        found = site.get("/metrics")

    assert found.status == 200
    assert found.headers["Content-Type"].startswith("text/plain") or "openmetrics" in found.headers["Content-Type"]
    assert "dkist-core.collect" in found.text


def test_answers_are_timed_by_path_and_status() -> None:
    """Neither streams nor paths and methods of strangers are: there are few series."""
    with running() as site:
        for path in ("/", "/runs?q=x", "/runs?state=lost", "/api/v1/runs", "/none", "/elsewhere", "/static/style.css"):
            site.get(path)
        site.request("PROPFIND", "/runs")
        with site.viewer("/") as viewer:
            viewer.parts()
        found = site.get("/metrics").text.splitlines()

    counts = {}
    for line in found:
        if line.startswith("http_server_request_duration_seconds_count{"):
            names = dict(re.findall(r'(\w+)="([^"]*)"', line))
            key = names["http_request_method"], names.get("http_route"), names["http_response_status_code"]
            counts[key] = float(line.rpartition(" ")[2])
    # How often it was asked until it was ready depends on the machine.
    for status in ("200", "503"):
        counts.pop(("GET", "/health/ready", status), None)
    assert counts == {
        ("GET", "/", "200"): 1,
        ("GET", "/runs", "200"): 1,
        ("GET", "/runs", "400"): 1,
        ("GET", "/api/v1/runs", "200"): 1,
        ("GET", None, "404"): 2,
        ("GET", "/static", "200"): 1,
        ("_OTHER", "/runs", "405"): 1,
    }
